"""The certificates of a stack: whether each is whole, its party's, and valid for some time yet.

Reads what the stack file holds; makes nothing (ops/authority.py does). Imported where a stack has TLS only: the library takes a
tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from configs.problems import Problem
from configs.secrets import CA_CERTIFICATE, Certificate, Party, certificate_key, parties_of, private_key_key, trust_key
from configs.settings import StackSettings

if TYPE_CHECKING:
    from configs.loader import Loaded


#: How long before its end a certificate is warned of.
WARNED_BEFORE: Final = timedelta(days=30)

#: Of the certificates that a server sends, RFC 5280 wants more than many a hospital's own authority writes. What matters here is the chain,
#: the dates and the name.
_SIGNER: Final = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
_NAMED: Final = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def with_certificates(loaded: Loaded, config: Mapping[str, str], stack: str, now: datetime) -> Loaded:
    """A stack file that check_certificates() has nothing against, with the certificates of all its parties, and those that end soon.

    Args:
        loaded: what the stack file holds besides.
        config: its keys and values, less the namespace.
        stack: the stack's name, for the command that renews one.
        now: the time.
    """
    found = {party.name: _certificate(party, config) for party in parties_of(loaded.settings)}
    ends = {name: _end(load_chain(one.chain), load_chain(one.trust)) for name, one in found.items()}
    warnings = tuple(
        f"{name}: its certificate ends on {found[name].expires}, and then this stack is refused. Renew it: make certs STACK={stack}"
        for name in sorted(found)
        if now <= ends[name] < now + WARNED_BEFORE
    )
    return replace(loaded, certificates=found, authority=config.get(CA_CERTIFICATE, ""), warnings=warnings)


def check_certificates(settings: StackSettings, config: Mapping[str, str], stack: str, now: datetime) -> Iterator[Problem]:
    """What is wrong with the certificates and private keys that a stack needs; no private key is shown.

    Args:
        settings: the stack.
        config: its stack file's keys and values, less the namespace.
        stack: the stack's name, for the command that puts it right.
        now: the time.
    """
    for party in parties_of(settings):
        wanted = [trust_key(party.name)]
        if not party.outside:
            wanted += [certificate_key(party.name), private_key_key(party.name)]
        missing, *more = sorted(key for key in wanted if key not in config) or [""]
        if missing:
            others = f", with {' and '.join(more)}" if more else ""
            how = f"Make it: make certs STACK={stack}   (docs/tls.md says how to give one of your own)"
            yield Problem(missing, f"is missing{others}: {party.name} speaks TLS. {how}")
        else:
            yield from _check_party(party, config, stack, now)


def load_chain(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, in its order; empty where it holds none that can be read."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return []


def dns_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)


def _certificate(party: Party, config: Mapping[str, str]) -> Certificate:
    chain = "" if party.outside else config[certificate_key(party.name)]
    trust = config[trust_key(party.name)]
    own, trusted = load_chain(chain), load_chain(trust)
    return Certificate(chain, trust, f"{_end(own, trusted):%Y-%m-%d}", _fingerprint(own), _fingerprint(trusted))


def _end(*chains: Sequence[x509.Certificate]) -> datetime:
    """When the first of some certificates ends."""
    return min(one.not_valid_after_utc for chain in chains for one in chain)


def _fingerprint(chain: Sequence[x509.Certificate]) -> str:
    return chain[0].fingerprint(SHA256()).hex() if chain else ""


def _check_party(party: Party, config: Mapping[str, str], stack: str, now: datetime) -> Iterator[Problem]:
    pems = [trust_key(party.name)] if party.outside else [certificate_key(party.name), trust_key(party.name)]
    unread = [key for key in pems if not load_chain(config[key])]
    if unread:
        yield from (
            Problem(key, "holds no certificate that can be read; a PEM text begins with -----BEGIN CERTIFICATE-----.") for key in unread
        )
        return
    renew = f"Renew it: make certs STACK={stack}; then make up STACK={stack}. One of your own: set {' and '.join(pems)} anew."
    for key in pems:
        for one in load_chain(config[key]):
            subject = one.subject.rfc4514_string()
            if one.not_valid_after_utc < now:
                yield Problem(key, f"is over: {subject} was valid until {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC. {renew}")
                return
            if one.not_valid_before_utc > now:
                yield Problem(key, f"is not valid yet: {subject} begins {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC. Is the clock right?")
                return
    if not party.outside:
        yield from _check_own(party, config, now)


def _check_own(party: Party, config: Mapping[str, str], now: datetime) -> Iterator[Problem]:
    key = certificate_key(party.name)
    own, *others = load_chain(config[key])
    try:
        private = load_pem_private_key(config[private_key_key(party.name)].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        yield Problem(private_key_key(party.name), "holds no private key that can be read: a PEM text without a passphrase.")
        return
    if private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != own.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ):
        yield Problem(key, f"does not belong to {private_key_key(party.name)}: set both to the two parts of one.")
        return
    if party.serves and party.name not in dns_names(own):
        names = ", ".join(dns_names(own)) or "no DNS name"
        yield Problem(key, f"is not for {party.name}, the name that it is reached by in the stack, but for {names}; have that name added.")
        return
    try:
        verifier = PolicyBuilder().store(Store(load_chain(config[trust_key(party.name)]))).time(now)
        verifier.extension_policies(ee_policy=_NAMED, ca_policy=_SIGNER).build_client_verifier().verify(own, others)
    except VerificationError as error:
        yield Problem(
            key,
            f"is not from what {trust_key(party.name)} holds: {error}. Set that to the authority that signed it, and add what is between.",
        )
