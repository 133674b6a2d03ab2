"""A stack's own certificate authority: makes the certificates of its nodes, its database and the devices that speak TLS with it.

One authority signs for all, so that a browser or a scanner needs to be told one certificate. In between, each party has an issuer of its
own, which signs one certificate and whose key is then thrown away. A node trusts the issuers of those that it is linked to, and not the
authority: DCMTK compares no names, and any certificate of the authority would do for any node. So a renewed certificate also ends the one
before it, without lists of what was revoked.

The database's clients compare names (libpq, verify-full). They trust the authority, so that the database's renewed certificate is good for
nodes that run; and a new authority is signed by the one before it, for the time until the nodes know it.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configs import names
from configs.certificates import load_chain
from configs.secrets import CA_CERTIFICATE, CA_KEY, certificate_key, parties_of, private_key_key, trust_key
from configs.settings import StackSettings

#: RSA: with TLS 1.2, what is made with DCMTK has by default no cipher for another kind of key ("no shared cipher", DCMTK 3.6.9).
_KEY_BITS: Final = 3072
_CA_LIFE: Final = timedelta(days=3650)
#: Browsers refuse what is valid for more than 398 days.
LIFE: Final = timedelta(days=397)
#: What has less than this left is made anew by `certs`.
RENEWED_BEFORE: Final = timedelta(days=60)
#: What the authority itself is called among the parties; no node's name has a blank.
AUTHORITY: Final = "the authority"
#: Clocks of devices are not exact.
_EARLIER: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Made:
    """What was made for a stack file."""

    plain: Mapping[str, str]  #: keys and values to set in clear
    secret: Mapping[str, str]  #: keys and values to set as secrets
    why: Mapping[str, str]  #: why each party's certificate was made, by the party's name; the authority's own as AUTHORITY


def due(
    settings: StackSettings, held: Mapping[str, str], now: datetime, renew: Container[str] = (), *, only_needed: bool = False
) -> dict[str, str]:
    """Why certificates have to be made, by the party's name; nothing of those that serve. Needs no private key. Arguments as of make()."""
    good_at = now + (timedelta(0) if only_needed else RENEWED_BEFORE)
    parties = [party.name for party in parties_of(settings) if not is_own(party.name, held)]
    reasons = {name: "it was asked for" if name in renew else _reason(name, settings, held, good_at) for name in parties}
    return {name: reason for name, reason in reasons.items() if reason}


def make(settings: StackSettings, held: Mapping[str, str], now: datetime, renew: Container[str] = (), *, only_needed: bool = False) -> Made:
    """The certificates that a stack lacks, that end soon, or that are asked for.

    Certificates of one's own are left alone: those that the stack's authority has not signed.

    Args:
        settings: the stack.
        held: what its stack file holds in clear, less the namespace, and the authority's key (tlsCaKey), if there is one.
        now: the time.
        renew: parties to make anew in any case; AUTHORITY for the authority, and with it all.
        only_needed: leave what ends soon as it is.
    """
    why = due(settings, held, now, renew, only_needed=only_needed)
    if not why and AUTHORITY not in renew:
        return Made({}, {}, {})
    plain: dict[str, str] = {}
    secret: dict[str, str] = {}
    authority, bridge = (None if AUTHORITY in renew else _held_authority(held, now + LIFE)), ""
    if authority is None:
        authority = _new_identity(f"{names.PROJECT} authority")
        plain[CA_CERTIFICATE] = _pem(_sign(authority, authority, _is_authority(2), now, _CA_LIFE))
        secret[CA_KEY] = _key_pem(authority.key)
        before_it = _held_authority(held, now)
        bridge = _pem(_sign(authority, before_it, _is_authority(1), now, LIFE)) if before_it else ""
        # What another one has signed would be taken for somebody's own.
        all_of_it = {party.name: "the authority is new" for party in parties_of(settings) if not is_own(party.name, held)}
        why = {AUTHORITY: "there was none, or not for long", **all_of_it, **why}
    for name in sorted(why.keys() - {AUTHORITY}):
        issued = _issue(name, _reached_at(name, settings), authority, now)
        plain[certificate_key(name)] = _pem(issued.certificate) + _pem(issued.issuer)
        plain[trust_key(name)] = _pem(issued.trust)
        if name == names.DB_HOST:
            plain[certificate_key(name)] += bridge
            plain[trust_key(name)] = plain.get(CA_CERTIFICATE) or held[CA_CERTIFICATE]
        secret[private_key_key(name)] = _key_pem(issued.key)
    return Made(plain, secret, why)


def is_own(party: str, held: Mapping[str, str]) -> bool:
    """Whether a party's certificate is one that the stack's authority did not make."""
    authority = load_chain(held.get(CA_CERTIFICATE, ""))
    chain = load_chain(held.get(certificate_key(party), ""))
    if not chain:
        return trust_key(party) in held
    return not authority or not any(_signed(authority[0], one) for one in chain[1:])


def _reason(party: str, settings: StackSettings, held: Mapping[str, str], good_at: datetime) -> str:
    """Why a party's certificate is made; nothing where it is not."""
    chain = load_chain(held.get(certificate_key(party), ""))
    if not chain or trust_key(party) not in held:
        return "there was none"
    ends = min(one.not_valid_after_utc for one in chain)
    if ends < good_at:
        return f"it ends on {ends:%Y-%m-%d}"
    known = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    unknown = [name for name in _reached_at(party, settings) if name not in known]
    return f"it is not for {unknown[0].value}" if unknown else ""


@dataclass(frozen=True)
class _Identity:
    """Somebody's name and key."""

    name: x509.Name
    key: rsa.RSAPrivateKey


def _new_identity(role: str) -> _Identity:
    """With the key's number in the name: a browser that knows another stack's must not take one for the other."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    number = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:12]
    return _Identity(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{role} {number}")]), key)


def _held_authority(held: Mapping[str, str], good_at: datetime) -> _Identity | None:
    """The authority that the stack file holds, with its key; None for one that is over at a time."""
    chain = load_chain(held.get(CA_CERTIFICATE, ""))
    if not chain or CA_KEY not in held or chain[0].not_valid_after_utc < good_at:
        return None
    key = load_pem_private_key(held[CA_KEY].encode(), password=None)
    return _Identity(chain[0].subject, key) if isinstance(key, rsa.RSAPrivateKey) else None


@dataclass(frozen=True)
class _Issued:
    """A party's certificate and key, and its issuer as the authority signed it, and as it signed itself."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    issuer: x509.Certificate
    trust: x509.Certificate


def _issue(party: str, reached_at: Sequence[x509.GeneralName], authority: _Identity, now: datetime) -> _Issued:
    issuer, itself = _new_identity(f"issuer of {party}"), _new_identity(party)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(authority=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName(reached_at), False),
    ]
    return _Issued(
        certificate=_sign(itself, issuer, extensions, now, LIFE),
        key=itself.key,
        # For those who trust the authority, and for those who trust nothing but this issuer.
        issuer=_sign(issuer, authority, _is_authority(0), now, LIFE),
        trust=_sign(issuer, issuer, _is_authority(0), now, LIFE),
    )


def _reached_at(party: str, settings: StackSettings) -> list[x509.GeneralName]:
    """The names and addresses that a party is reached by: its own, and for a node this machine's and what its ports are bound to."""
    found = [party]
    for node in settings.nodes:
        if node.name == party and settings.tls_of(node):
            everywhere = ip_address(settings.bind_of(node)).is_unspecified
            found += ["localhost", "127.0.0.1", "::1", *([] if everywhere else [settings.bind_of(node)]), *node.tls_names]
    return [_general_name(one) for one in dict.fromkeys(found)]


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _sign(
    subject: _Identity, by: _Identity, extensions: Iterable[tuple[x509.ExtensionType, bool]], now: datetime, life: timedelta
) -> x509.Certificate:
    public = subject.key.public_key()
    builder = x509.CertificateBuilder(by.name, subject.name, public, x509.random_serial_number(), now - _EARLIER, now + life)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key())
    return builder.add_extension(issued_by, critical=False).sign(by.key, SHA256())


def _is_authority(levels_below: int) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.BasicConstraints(ca=True, path_length=levels_below), True), (_usage(authority=True), True)]


def _usage(*, authority: bool) -> x509.KeyUsage:
    """What a key is for: an authority signs certificates; a party proves who it is."""
    unused = dict.fromkeys(("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(
        digital_signature=not authority, key_encipherment=not authority, key_cert_sign=authority, crl_sign=authority, **unused
    )


def _signed(authority: x509.Certificate, one: x509.Certificate) -> bool:
    try:
        one.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
