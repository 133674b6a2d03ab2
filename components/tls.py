"""TLS of a node: the files in its container, and Orthanc's options that name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi

from components.container import File
from configs.secrets import Certificate

#: A node's certificate and key in one file: civetweb wants them so, and DCMTK finds both there. Not among /run/secrets/*.json, which the
#: images merge.
_IDENTITY = "/run/secrets/tls.pem"
_TRUSTED = "/etc/orthanc/tls-trusted.pem"


@dataclass(frozen=True, kw_only=True)
class NodeTls:
    """How a node speaks TLS."""

    certificate: Certificate  #: Its own certificate.
    key: pulumi.Input[str]  #: Its private key.
    serves: bool = True  #: Whether it takes connections by TLS only; else it uses its certificate for calls to peers that do.
    trusts: Mapping[str, Certificate] = field(default_factory=dict)  #: The certificates of its peers, by their names.

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
        """The files that the options name."""
        identity: pulumi.Output[str] = pulumi.Output.secret(pulumi.Output.concat(self.certificate.chain, self.key))
        # Without peers, it trusts itself: Orthanc wants a certificate there.
        trusted = "".join(self.trusts[peer].trust for peer in sorted(self.trusts)) or self.certificate.trust
        return [File(path=_IDENTITY, content=identity, mode="0400"), File(path=_TRUSTED, content=trusted)]
