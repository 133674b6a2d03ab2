"""REST API of a node that may be down: connections that stay open, short time-outs."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any
from urllib.parse import urlsplit

from tests.stack.harness import Node


class DownError(Exception):
    """No answer, or 503."""


class Rest:
    """A node's REST API; a connection for each thread."""

    def __init__(self, node: Node, seconds: float = 20) -> None:
        address = urlsplit(node.url)
        self._address = address.hostname or "", address.port or 80
        self._headers = {"Authorization": node.authorization}
        self._seconds = seconds
        self._of_thread = threading.local()

    def ask(self, path: str, body: Any = None, *, method: str = "GET") -> tuple[int, bytes]:
        """The status and the content of the answer.

        Raises:
            DownError: there was none, or 503.
        """
        data = None if body is None else json.dumps(body).encode()
        connection = getattr(self._of_thread, "connection", None) or http.client.HTTPConnection(*self._address, timeout=self._seconds)
        self._of_thread.connection = connection
        try:
            connection.request("POST" if data is not None else method, path, data, self._headers)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            self._of_thread.connection = None
            raise DownError(f"{type(error).__name__}: {error}") from None
        if answer.status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise DownError("503")
        return answer.status, content

    def json(self, path: str, body: Any = None) -> Any:
        """JSON of an answer of success."""
        status, content = self.ask(path, body)
        if status != http.HTTPStatus.OK:
            raise DownError(f"{path}: {status} {content[:200]!r}")
        return json.loads(content)

    def answers(self) -> bool:
        """Whether the node answers from its database."""
        try:
            self.json("/statistics")
        except DownError:
            return False
        return True
