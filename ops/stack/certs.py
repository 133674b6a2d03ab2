"""`certs`: the certificates of a stack, and what a device outside it needs."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from configs.loader import load_stack_file
from configs.names import PROJECT, own
from configs.problems import nearest
from configs.secrets import CA_CERTIFICATE, CA_KEY, certificate_key, is_certificate, parties_of, private_key_key
from configs.settings import StackSettings
from ops.setup.console import SetupError, say
from ops.setup.prepare import stack_config, stack_file
from ops.stack.secrets import set_secrets
from ops.stack.stack import Stack, opened

#: Stands for every certificate that the stack's authority has made.
ALL: Final = "all"


def certs(name: str, renew: Sequence[str] = (), export: Sequence[str] = ()) -> int:
    """Make the certificates that are missing or end soon; the exit status.

    Args:
        name: the stack's name.
        renew: those to make anew in any case.
        export: the devices whose own to write into a folder, with the key and what they are to trust.
    """
    settings = load_stack_file(name)
    parties = [party.name for party in parties_of(settings)]
    if not parties:
        raise SetupError("nobody in this stack speaks TLS: set tls of a node, of a modality or of indexDb.")
    stack = opened(name, engine=False)
    from ops.stack.authority import is_own  # noqa: PLC0415 - its library is for a stack with TLS only

    held = certificates_in(stack_config(name))
    made_here = [party for party in parties if not is_own(party, held)]
    renewed = renew_certificates(stack, settings, _named(renew, parties, made_here))
    _export(stack, _named(export, parties, made_here))
    if renewed:
        say("Certificates", f"`./orthanc-stack up {name}` gives them to the stack")
    return 0


def ensure_certificates(stack: Stack, settings: StackSettings) -> None:
    """Make the certificates that a stack needs and has not; renew none that still serves."""
    if parties_of(settings):
        renew_certificates(stack, settings, only_needed=True)


def require_certificates(stack: Stack, settings: StackSettings) -> None:
    """Refuse a stack file that lacks a certificate: neither a pipeline nor a preview makes one. Decrypts nothing.

    Raises:
        SetupError: which are missing or over.
    """
    if not parties_of(settings):
        return
    from ops.stack.authority import due  # noqa: PLC0415 - its library is for a stack with TLS only

    config = stack_config(stack.name, stack.root)
    why = due(settings, certificates_in(config), datetime.now(UTC), only_needed=True)
    missing = [f"{certificate_key(party)} ({reason})" for party, reason in sorted(why.items())]
    keys = [private_key_key(party.name) for party in parties_of(settings) if not party.outside and party.name not in why]
    missing += [f"{key} (there is none)" for key in keys if f"{PROJECT}:{key}" not in config]
    if missing:
        raise SetupError(
            f"{stack_file(stack.name).name} lacks certificates: {', '.join(missing)}. At a desk: "
            f"`./orthanc-stack certs {stack.name}` makes them; then commit the stack file."
        )


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
    from ops.stack.authority import AUTHORITY, due, is_own, make  # noqa: PLC0415 - its library is for a stack with TLS only

    config = stack_config(stack.name, stack.root)
    held, now = certificates_in(config), datetime.now(UTC)
    if foreign := [party for party in renew if is_own(party, held)]:
        key = certificate_key(foreign[0])
        raise SetupError(f"the certificate of {foreign[0]} is not of this stack's authority: set {key} to a new one.")
    if AUTHORITY not in renew and not due(settings, held, now, renew, only_needed=only_needed):
        say("Certificates", f"all {len(parties_of(settings))} there")
        return False
    # The authority's private key is decrypted only where it has to sign.
    if f"{PROJECT}:{CA_KEY}" in config:
        held[CA_KEY] = stack.ask("config", "get", f"{PROJECT}:{CA_KEY}")
    made = make(settings, held, now, renew, only_needed=only_needed)
    for party, why in made.why.items():
        say("Certificates", f"made for {party}: {why}")
    set_secrets(stack, made.secret, stack_file(stack.name, stack.root), made.plain)
    return True


def certificates_in(config: Mapping[str, Any]) -> dict[str, str]:
    """The certificates that the configuration of a stack file holds, by their keys."""
    return {key: str(value) for key, value in own(config).items() if is_certificate(key)}


def _named(said: Sequence[str], parties: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The parties that an option names."""
    named = list(everything) if ALL in said else sorted(set(said))
    if unknown := [one for one in named if one not in parties]:
        raise SetupError(f"{unknown[0]} has no certificate in this stack.{nearest(unknown[0], parties)} There are: {', '.join(parties)}.")
    return named


def _export(stack: Stack, parties: Sequence[str]) -> None:
    """Write what devices need to speak TLS with the stack: their certificate, their key, and what they are to trust."""
    config = stack_config(stack.name, stack.root)
    for party in parties:
        texts = {"certificate.pem": config.get(f"{PROJECT}:{certificate_key(party)}"), "ca.pem": config.get(f"{PROJECT}:{CA_CERTIFICATE}")}
        if not all(texts.values()):
            raise SetupError(f"the stack has made no certificate for {party}: it has one of its own.")
        folder = stack.root / "certificates" / stack.short / party
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
