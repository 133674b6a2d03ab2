"""TLS inside the containers: which files there are, and what Orthanc is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from components.base import File

#: Not among /run/secrets/*.json, which the images merge. A node's certificate and key are in one file: civetweb wants them so, DCMTK
#: takes from it what it looks for.
_IDENTITY = "/run/secrets/tls.pem"
_TRUSTED = "/etc/orthanc/tls-trusted.pem"


@dataclass(frozen=True)
class Trust:
    """What somebody is known by.

    Attributes:
        pem: a certificate, or several.
        fingerprint: the SHA-256 of the first: what a preview shows of it.
    """

    pem: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate and what goes with it.

    Attributes:
        certificate: the certificate and those that lead to what others trust, as PEM.
        trust: what others are to know its owner by.
        expires: the day on which it ends.
        fingerprint: its SHA-256.
        key: its private key.
    """

    certificate: str
    trust: Trust
    expires: str
    fingerprint: str
    key: pulumi.Input[str]

    def shown(self) -> dict[str, str]:
        """What a preview shows of it: a renewal changes files only, which it masks."""
        return {"expires": self.expires, "sha256": self.fingerprint}

    def in_one_file(self, path: str) -> File:
        """The certificate and the key, for root alone."""
        return File(path=path, content=pulumi.Output.secret(pulumi.Output.concat(self.certificate, self.key)), mode="0400")


@dataclass(frozen=True, kw_only=True)
class NodeTls:
    """How a node speaks TLS.

    Attributes:
        identity: its own certificate.
        serves: whether it takes connections by TLS only; else it has its certificate for those peers that do.
        trusted: what it knows its peers by, by their names.
    """

    identity: Identity
    serves: bool
    trusted: Mapping[str, Trust]

    def options(self) -> dict[str, Any]:
        """Orthanc's options."""
        return {
            "DicomTlsEnabled": self.serves,
            # For both sides of an association: DCMTK shows it when it calls, too.
            "DicomTlsCertificate": _IDENTITY,
            "DicomTlsPrivateKey": _IDENTITY,
            "DicomTlsTrustedCertificates": _TRUSTED,
            "DicomTlsRemoteCertificateRequired": True,
            "SslEnabled": self.serves,
            **({"SslCertificate": _IDENTITY} if self.serves else {}),
        }

    def files(self) -> list[File]:
        """What the options name."""
        # Without anybody, it trusts itself: Orthanc wants a certificate there.
        trusted = "".join(self.trusted[peer].pem for peer in sorted(self.trusted)) or self.identity.trust.pem
        return [self.identity.in_one_file(_IDENTITY), File(path=_TRUSTED, content=trusted)]
