"""Certificates as others make them, good and bad, and servers and clients that use them."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM."""

    certificate: str
    key: str


class Authority:
    """A certificate authority of somebody's own."""

    def __init__(self, name: str) -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(self._name, self._key, 3650 * _DAY, x509.BasicConstraints(ca=True, path_length=None), True)

    @property
    def pem(self) -> str:
        """Its own certificate."""
        return self._certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, *names: str, over: bool = False, days: int = 90) -> Pair:
        """A certificate for names and addresses; one that ended an hour ago, where ``over``."""
        key = ec.generate_private_key(ec.SECP256R1())
        life = timedelta(hours=-1) if over else days * _DAY
        known = x509.SubjectAlternativeName([_general_name(name) for name in names])
        certificate = self._sign(_name(names[0]), key, life, known, False)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Pair(certificate.public_bytes(Encoding.PEM).decode(), private.decode())

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta, extension: x509.ExtensionType, critical: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        number = x509.random_serial_number()
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), number, now - 3 * _DAY, now + life)
        return builder.add_extension(extension, critical).sign(self._key, SHA256())


def serving(pair: Pair | None, trust: str = "", *, old: bool = False) -> ssl.SSLContext:
    """A server's side; without a pair, of one that shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if trust:
        context.load_verify_locations(cadata=trust)
        context.verify_mode = ssl.CERT_REQUIRED
    return _with(context, pair, old)


def calling(pair: Pair | None, trust: str, *, old: bool = False) -> ssl.SSLContext:
    """A client's side, which compares no names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=trust)
    return _with(context, pair, old)


def _with(context: ssl.SSLContext, pair: Pair | None, old: bool) -> ssl.SSLContext:
    if pair is not None:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            context.load_cert_chain(file.name)
    elif context.protocol is ssl.PROTOCOL_TLS_SERVER:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("aNULL:@SECLEVEL=0")
    if old:
        context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL 3 does TLS 1.1 at no other level
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
