"""Opens addresses of nodes as their users do: by the certificate that the node is known by, and by no proxy."""

import functools
import ssl
import urllib.request
from typing import Any


class _Named(ssl.SSLContext):
    """Looks in a certificate for a given name instead of the address that was asked."""

    name: str

    def wrap_socket(self, *arguments: Any, **more: Any) -> ssl.SSLSocket:
        return super().wrap_socket(*arguments, **{**more, "server_hostname": self.name})


@functools.cache
def opener_of(trust: str, name: str) -> urllib.request.OpenerDirector:
    """What opens addresses of a node.

    Args:
        trust: what its certificate is known by, as PEM; empty for one without TLS.
        name: the node's name, which is in its certificate whatever address it is reached by.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if trust:
        context = _Named(ssl.PROTOCOL_TLS_CLIENT)
        context.name = name
        context.load_verify_locations(cadata=trust)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)
