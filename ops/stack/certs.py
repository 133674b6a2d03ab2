"""`make certs`: the certificates of a stack, and what a device outside it needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.loader import load_stack_file
from configs.names import PROJECT, own
from configs.problems import nearest
from configs.secrets import CA_CERTIFICATE, CA_KEY, certificate_key, is_certificate, parties_of, private_key_key, trust_key
from configs.settings import StackSettings
from ops.setup.console import SetupError, say
from ops.setup.prepare import stack_config, stack_file
from ops.stack.secrets import set_secrets
from ops.stack.stack import Stack, opened

#: Stands for every certificate that the stack's authority has made.
ALL = "all"


def certs(name: str) -> int:
    """Make or renew certificates, or with EXPORT write a device's own into a folder; the exit status."""
    settings = load_stack_file(name)
    parties = [party.name for party in parties_of(settings)]
    if not parties:
        raise SetupError("nobody in this stack speaks TLS: set tls of a node, of a modality or of indexDb.")
    stack = opened(name, engine=False)
    from ops.stack.authority import is_own  # noqa: PLC0415 - for a stack with TLS only

    exported = os.environ.get("EXPORT", "")
    held = certificates_in(stack_config(name))
    made_here = [party for party in parties if not is_own(party, held)]
    renewed = renew_certificates(stack, settings, _named("RENEW", os.environ.get("RENEW", ""), parties, made_here))
    if exported:
        _export(stack, _named("EXPORT", exported, parties, made_here))
    if renewed:
        say("Certificates", f"`make up STACK={name}` gives them to the stack")
    return 0


def ensure_certificates(stack: Stack, settings: StackSettings) -> None:
    """Make the certificates that a stack needs and has not; renew none that still serves."""
    if parties_of(settings):
        renew_certificates(stack, settings, only_needed=True)


def renew_certificates(stack: Stack, settings: StackSettings, renew: Sequence[str] = (), *, only_needed: bool = False) -> bool:
    """Make certificates and set them in the stack file, with their keys as secrets; whether any were made.

    Args:
        stack: the stack.
        settings: what its stack file says.
        renew: those to make anew in any case: names of parties, ops.stack.authority.AUTHORITY.
        only_needed: leave what ends soon as it is.

    Raises:
        SetupError: the stack file's certificates are one's own, and were asked to be made anew.
    """
    from ops.stack.authority import is_own, make  # noqa: PLC0415 - for a stack with TLS only

    config = stack_config(stack.name, stack.root)
    held = certificates_in(config)
    if foreign := [party for party in renew if is_own(party, held)]:
        key = certificate_key(foreign[0])
        raise SetupError(f"the certificate of {foreign[0]} is not of this stack's authority: set {key} to a new one.")
    if f"{PROJECT}:{CA_KEY}" in config:
        held[CA_KEY] = stack.ask("config", "get", f"{PROJECT}:{CA_KEY}")
    made = make(settings, held, datetime.now(UTC), renew, only_needed=only_needed)
    for party, why in made.why.items():
        say("Certificates", f"made for {party}: {why}")
    if not made.why:
        say("Certificates", f"all {len(parties_of(settings))} there")
        return False
    set_secrets(stack, made.secret, stack_file(stack.name, stack.root), made.plain)
    return True


def certificates_in(config: Mapping[str, Any]) -> dict[str, str]:
    """The certificates that the configuration of a stack file holds, by their keys."""
    return {key: str(value) for key, value in own(config).items() if is_certificate(key)}


def _named(variable: str, said: str, parties: Sequence[str], everything: Sequence[str] = ()) -> list[str]:
    """The parties that a variable names."""
    named = list(everything) if said == ALL else sorted(set(said.split()))
    if unknown := [one for one in named if one not in parties]:
        there = ", ".join(parties)
        raise SetupError(f"{variable}={unknown[0]} has no certificate in this stack.{nearest(unknown[0], parties)} There are: {there}.")
    return named


def _export(stack: Stack, parties: Sequence[str]) -> None:
    """Write what devices need to speak TLS with the stack: their certificate, their key, and what they are to trust."""
    config = stack_config(stack.name, stack.root)
    for party in parties:
        texts = {"certificate.pem": config.get(f"{PROJECT}:{certificate_key(party)}"), "ca.pem": config.get(f"{PROJECT}:{CA_CERTIFICATE}")}
        if not all(texts.values()):
            raise SetupError(f"the stack has made no certificate for {party}: it has one of its own.")
        folder = stack.root / "certificates" / stack.name.rpartition("/")[2] / party
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        texts["key.pem"] = stack.ask("config", "get", f"{PROJECT}:{private_key_key(party)}")
        for file, text in texts.items():
            _write_private(folder / file, str(text).strip() + "\n")
        say("Certificates", f"{folder.relative_to(stack.root)}/: certificate.pem and key.pem for {party}, ca.pem for it to trust")


def _write_private(file: Path, text: str) -> None:
    """Nobody else reads it, from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)


def require_certificates(stack: Stack, settings: StackSettings) -> None:
    """Refuse to go on where certificates or their private keys are missing, for the commands that make none.

    Raises:
        SetupError: which, and what makes them.
    """
    config = own(stack_config(stack.name, stack.root))
    parties = parties_of(settings)
    needed = [trust_key(party.name) for party in parties]
    needed += [key(party.name) for party in parties if not party.outside for key in (certificate_key, private_key_key)]
    if missing := sorted(key for key in needed if key not in config):
        file = stack_file(stack.name, stack.root).name
        raise SetupError(f"{file} has no {', '.join(missing)}. `./orthanc-stack certs {stack.name}` makes what is missing.")
