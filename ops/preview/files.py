"""What is public of the reasons why a container's files change. Of the files themselves Pulumi shows nothing, as soon as one is secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from configs import names
from configs.orthanc import OF_LINKS
from ops.preview.differ import differences
from ops.preview.model import Code, Words, listed, say
from ops.preview.parts import Change
from ops.preview.sides import Node
from ops.preview.steps import UNKNOWN

#: Options that come and go with a node's TLS.
OF_TLS: Final = frozenset(
    {
        *("DicomTlsEnabled", "DicomTlsCertificate", "DicomTlsPrivateKey", "DicomTlsTrustedCertificates", "DicomTlsCiphersAccepted"),
        *(
            "DicomTlsRemoteCertificateRequired",
            "DicomTlsMinimumProtocolVersion",
            "SslEnabled",
            "SslCertificate",
            "SslMinimumProtocolVersion",
        ),
    }
)
#: Options that the program computes from a node's links: no reason of their own where its peers change, too.
_FOLLOW: Final = OF_LINKS | {"PythonScript"}


@dataclass(frozen=True)
class Because:
    """A reason, and the other parts of the stack that are behind it."""

    words: Words
    parts: tuple[str, ...] = ()


def files_of(change: Change, name: str, kind: str) -> list[Because]:
    """What is public of the reasons why a container's files change; none where only a secret can be behind it."""
    if kind == "node":
        old, new = change.old.nodes.get(name), change.new.nodes.get(name)
        return list(_configuration(change, old, new)) if old and new else []
    if kind == "forwarder":
        node = name.removesuffix(names.forwarder_of(""))
        old, new = change.old.nodes.get(node), change.new.nodes.get(node)
        return list(_forwarding(change, old, new)) if old and new else []
    if kind == "db" or (kind == "db-roles" and change.old.db_certificate != change.new.db_certificate):
        return list(_certificate(change.old.db_certificate, change.new.db_certificate, "the database" if kind == "db-roles" else ""))
    if kind == "db-roles" and change.old.databases != change.new.databases:
        come = sorted(set(change.new.databases) - set(change.old.databases))
        gone = sorted(set(change.old.databases) - set(change.new.databases))
        words = [say("it makes a database for ", listed(come))] if come else []
        words += [say("it has none to make for ", listed(gone))] if gone else []
        return [Because(each, (*come, *gone)) for each in words]
    return []


def _configuration(change: Change, old: Node, new: Node) -> Iterator[Because]:
    if old.aet != new.aet:
        yield Because(say("its AE title changes"))
    for peer in sorted({*old.peers, *new.peers}):
        before, after = old.peers.get(peer), new.peers.get(peer)
        if before != after:
            yield Because(_peer(change, peer, before, after), (peer,) if peer in {*change.old.nodes, *change.new.nodes} else ())
    yield from _tls(old, new)
    options = {_top(path) for path, _, _ in differences(_options(old), _options(new))}
    if old.tls != new.tls or bool(old.certificate) != bool(new.certificate):
        options -= OF_TLS
    if old.peers != new.peers:
        options -= _FOLLOW
    if options:
        yield Because(say("its options change: ", listed(sorted(options))))
    if _users(old) != _users(new):
        yield Because(say("its users or their roles change"))
    if (names.FORWARDER_USER in old.roles) != (names.FORWARDER_USER in new.roles):
        yield Because(say("it gets a forwarder" if names.FORWARDER_USER in new.roles else "its forwarder goes"))
    if (old.delete_after is None) != (new.delete_after is None):
        yield Because(say("its forwarder may delete from now on, or no more"))


def _tls(old: Node, new: Node) -> Iterator[Because]:
    if old.tls != new.tls:
        yield Because(say("it speaks TLS from now on, and nothing else" if new.tls else "it speaks TLS no more"))
    yield from _certificate(old.certificate, new.certificate)
    for peer in sorted({*old.trusts, *new.trusts} - {old.name}):
        if peer in old.trusts and peer in new.trusts and old.trusts[peer] != new.trusts[peer]:
            yield Because(say("it knows ", Code(peer), " by another certificate"), (peer,))
        elif peer in ({*old.trusts} ^ {*new.trusts}) and peer in ({names.DB_HOST, *old.peers, *new.peers}):
            yield Because(say("it knows ", Code(peer), " by a certificate", "" if peer in new.trusts else " no more"), (peer,))


def _certificate(old: Mapping[str, str], new: Mapping[str, str], whose: str = "") -> Iterator[Because]:
    if old and new and old != new:
        yield Because(say(f"{whose or 'it'} gets another certificate"))
    elif bool(old) != bool(new):
        yield Because(say(f"{whose or 'it'} gets a certificate" if new else f"{whose or 'it'} has no certificate any more"))


def _peer(change: Change, peer: str, before: Any, after: Any) -> Words:
    if before is None:
        return say("it gets to know ", Code(peer), ", which is new" if peer not in change.old.nodes and peer in change.new.nodes else "")
    if after is None:
        return say("it no longer knows ", Code(peer), ", which goes" if peer not in change.new.nodes and peer in change.old.nodes else "")
    if before.get("AET") != after.get("AET"):
        return say("it knows ", Code(peer), ", whose AE title changes")
    if (before.get("Host"), before.get("Port")) != (after.get("Host"), after.get("Port")):
        return say("it knows ", Code(peer), ", whose address changes")
    if before.get("UseDicomTls") != after.get("UseDicomTls"):
        return say("it knows ", Code(peer), ", which speaks TLS from now on" if after.get("UseDicomTls") else ", which speaks TLS no more")
    return say("what it lets ", Code(peer), " ask changes")


def _forwarding(change: Change, old: Node, new: Node) -> Iterator[Because]:
    if old.trusts.get(old.name) != new.trusts.get(new.name):
        yield Because(
            say("it knows ", Code(old.name), " by another certificate" if new.tls and old.tls else ", whose TLS changes"), (old.name,)
        )
    if old.program != new.program:
        yield Because(say("the forwarder's program changes"))
    if new.links is None or old.links is None:
        yield Because(say("where it forwards is only known at the update"))
        return
    for to in sorted({*old.links, *new.links}):
        part = (to,) if to in {*change.old.nodes, *change.new.nodes} else ()
        if to not in old.links:
            yield Because(say("it gets the destination ", Code(to)), part)
        elif to not in new.links:
            yield Because(say("it loses the destination ", Code(to)), part)
        elif old.links[to] != new.links[to]:
            yield Because(say("the rules of its link to ", Code(to), " change"), part)
        elif old.revisions.get(to) != new.revisions.get(to):
            maybe = "may be" if new.revisions.get(to) == UNKNOWN else "is"
            yield Because(say("its destination ", Code(to), f" {maybe} deployed anew: it tries again what that had refused"), part)
    if UNKNOWN not in new.revisions.values() and old.delete_after != new.delete_after:
        yield Because(say("how long its node keeps images changes"))


def _users(node: Node) -> dict[str, str]:
    return {user: role for user, role in node.roles.items() if user != names.FORWARDER_USER}


def _options(node: Node) -> dict[str, Any]:
    return {key: value for key, value in node.configuration.items() if key not in ("DicomAet", "DicomModalities")}


def _top(path: str) -> str:
    return path.partition("[")[0]
