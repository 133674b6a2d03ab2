"""Which secrets change, by name: told from which containers' files change together, since of the files themselves nothing is shown."""

from __future__ import annotations

from collections.abc import Mapping

from configs import names
from configs.secrets import DB_PASSWORD, FORWARDER_PASSWORD, PRIVATE_KEY, private_key_key
from ops.preview.files import files_of
from ops.preview.model import SecretFile
from ops.preview.parts import Change, role


def secret_files(change: Change) -> tuple[SecretFile, ...]:
    """The containers whose files change without a public reason, each with the secrets that can be behind it.

    A secret that changes changes the files of all containers that hold it. So one whose other holders stay as they are is not it.
    """
    changed = _changed(change)
    holders = {key: held for key, held in _holders(change).items() if held <= changed.keys()}
    found = [
        SecretFile(name, tuple(sorted(key for key, held in holders.items() if name in held)))
        for name, explained in sorted(changed.items())
        if not explained
    ]
    return (*found, *(SecretFile(name, (private_key_key(name),)) for name in _renewed(change)))


def _renewed(change: Change) -> list[str]:
    """Those with another certificate, and so another private key."""
    both = [(name, node, change.new.nodes[name]) for name, node in sorted(change.old.nodes.items()) if name in change.new.nodes]
    pairs = [(name, old.certificate, new.certificate) for name, old, new in both]
    pairs.append((names.DB_HOST, change.old.db_certificate, change.new.db_certificate))
    return [name for name, old, new in pairs if old and new and old != new]


def hidden(change: Change) -> tuple[str, ...]:
    """The containers whose files change for a public reason, so that a secret may change with it unseen."""
    return tuple(sorted(name for name, explained in _changed(change).items() if explained))


def _changed(change: Change) -> Mapping[str, bool]:
    """The containers that stay in the stack and whose files change, with whether something public explains it."""
    found = {name: step for name, step in change.containers.items() if "uploads" in change.differing(step)}
    return {name: bool(files_of(change, name, role(step))) for name, step in found.items()}


def _holders(change: Change) -> dict[str, set[str]]:
    """Which containers hold each secret that there is before and after."""
    holders: dict[str, set[str]] = {}
    for key in change.old.secrets & change.new.secrets:
        kind, _, rest = key.partition(".")
        node = rest.partition(".")[0]
        if key == DB_PASSWORD:
            holders[key] = {names.DB_HOST, names.DB_ROLES}
        elif kind == DB_PASSWORD:
            holders[key] = {names.DB_ROLES, node}
        elif kind == PRIVATE_KEY:
            holders[key] = {rest}
        else:
            holders[key] = {node, names.forwarder_of(node)} if kind == FORWARDER_PASSWORD else {node}
    return holders
