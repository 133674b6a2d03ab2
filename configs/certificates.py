"""The certificates of a stack: whether each is complete, belongs to its party, and is valid for some time yet.

It reads what the stack file holds; ops/authority.py makes certificates. Imported only for a stack with TLS: the library takes a tenth of
a second.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from configs.problems import Problem
from configs.secrets import CA_CERTIFICATE, Certificate, Party, certificate_key, parties_of, private_key_key, trust_key
from configs.settings import StackSettings

if TYPE_CHECKING:
    from configs.loader import Loaded

#: How long before its end a certificate is warned of.
WARNED_BEFORE: Final = timedelta(days=30)

#: RFC 5280 requires more of a server's certificates than the authority of many a hospital writes. Here, the chain, the dates and the name
#: matter.
_SIGNER: Final = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
_NAMED: Final = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def with_certificates(loaded: "Loaded", config: Mapping[str, str], stack: str, now: datetime) -> "Loaded":
    """A stack file with the certificates of its parties, and a warning of each that ends soon.

    The arguments are those of check_certificates(), which must have found no problem.
    """
    certificates, warnings = {}, []
    for party in parties_of(loaded.settings):
        chain, trust = "" if party.outside else config[certificate_key(party.name)], config[trust_key(party.name)]
        own, trusted = load_chain(chain), load_chain(trust)
        end = min(one.not_valid_after_utc for one in (*own, *trusted))
        prints = [some[0].fingerprint(SHA256()).hex() if some else "" for some in (own, trusted)]
        certificates[party.name] = Certificate(chain, trust, f"{end:%Y-%m-%d}", *prints)
        if now <= end < now + WARNED_BEFORE:
            warnings.append(
                f"{party.name}: its certificate ends on {end:%Y-%m-%d}, and then this stack is refused. Renew it: "
                f"./orthanc-stack certs {stack}"
            )
    return replace(loaded, certificates=certificates, authority=config.get(CA_CERTIFICATE, ""), warnings=tuple(warnings))


def check_certificates(settings: StackSettings, config: Mapping[str, str], stack: str, now: datetime) -> Iterator[Problem]:
    """What is wrong with the certificates and private keys that a stack needs; no private key is shown.

    ``config`` has the keys of the stack file without the namespace, and their values; the messages' commands name the ``stack``.
    """
    for party in parties_of(settings):
        pems = [trust_key(party.name)] if party.outside else [certificate_key(party.name), trust_key(party.name)]
        wanted = pems if party.outside else [*pems, private_key_key(party.name)]
        if missing := sorted(key for key in wanted if key not in config):
            others = f", with {' and '.join(missing[1:])}" if missing[1:] else ""
            how = f"Make it: ./orthanc-stack certs {stack}   (docs/tls.md says how to give one of your own)"
            yield Problem(missing[0], f"is missing{others}: {party.name} speaks TLS. {how}")
        elif unread := [key for key in pems if not load_chain(config[key])]:
            for key in unread:
                yield Problem(key, "holds no certificate that can be read; a PEM text begins with -----BEGIN CERTIFICATE-----.")
        elif invalid := next(_not_valid_now(pems, config, stack, now), None):
            yield invalid
        elif not party.outside and (wrong := _check_own(party, config, now)):
            yield wrong


def load_chain(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, in its order; empty where it holds none that can be read."""
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return []


def _dns_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names that a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.DNSName)


def _not_valid_now(keys: list[str], config: Mapping[str, str], stack: str, now: datetime) -> Iterator[Problem]:
    """The certificates of a party that are not valid now."""
    renew = f"Renew it: ./orthanc-stack certs {stack}; then ./orthanc-stack up {stack}. One of your own: set {' and '.join(keys)} anew."
    for key, one in [(pem, one) for pem in keys for one in load_chain(config[pem])]:
        subject, begin, end = one.subject.rfc4514_string(), one.not_valid_before_utc, one.not_valid_after_utc
        if end < now:
            yield Problem(key, f"is over: {subject} was valid until {end:%Y-%m-%d %H:%M} UTC. {renew}")
        elif begin > now:
            yield Problem(key, f"is not valid yet: {subject} begins {begin:%Y-%m-%d %H:%M} UTC. Is the clock right?")


def _check_own(party: Party, config: Mapping[str, str], now: datetime) -> Problem | None:
    """What is wrong with a party's certificate, by its private key, its name and what others trust."""
    key, key_key, trusted = certificate_key(party.name), private_key_key(party.name), trust_key(party.name)
    own, *others = load_chain(config[key])
    try:
        private = load_pem_private_key(config[key_key].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return Problem(key_key, "holds no private key that can be read: a PEM text without a passphrase.")
    if private.public_key() != own.public_key():
        return Problem(key, f"does not belong to {key_key}: set both to the two parts of one.")
    if party.serves and party.name not in _dns_names(own):
        names = ", ".join(_dns_names(own)) or "no DNS name"
        return Problem(key, f"is not for {party.name}, the name that it is reached by in the stack, but for {names}; have that name added.")
    try:
        verifier = PolicyBuilder().store(Store(load_chain(config[trusted]))).time(now)
        verifier.extension_policies(ee_policy=_NAMED, ca_policy=_SIGNER).build_client_verifier().verify(own, others)
    except VerificationError as error:
        return Problem(
            key, f"is not from what {trusted} holds: {error}. Set that to the authority that signed it, and add what is between."
        )
    return None
