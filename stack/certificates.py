"""Certificates for a service whose processes only talk to each other, on loopback.

The key of the authority is not kept: nobody can issue another certificate, so whoever lacks the leaf's key is refused.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from stack.paths import private_folder, write_private

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

HOST = "127.0.0.1"
_LIFE = dt.timedelta(days=3650)
"""Certificates are replaced at each start; a stack may stay up for long."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of an authority's certificate, and of the one certificate it signed, for both ends of a connection."""

    folder: Path

    @property
    def authority(self) -> Path:
        """The certificate that both ends require of each other."""
        return self.folder / "authority.crt"

    @property
    def certificate(self) -> Path:
        """The certificate of 127.0.0.1 and localhost."""
        return self.folder / "service.crt"

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / "service.key"

    def issue(self) -> None:
        """Write a new authority and its certificate, readable only by their owner."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        authority = _signed("taskflow authority", authority_key, None, authority_key)
        certificate = _signed("taskflow service", key, authority, authority_key)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        private_folder(self.folder)
        write_private(self.authority, authority.public_bytes(serialization.Encoding.PEM).decode("ascii"))
        write_private(self.certificate, certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"))
        write_private(self.key, private.decode("ascii"))


def _signed(
    name: str, key: EllipticCurvePrivateKey, issuer: Certificate | None, issuer_key: EllipticCurvePrivateKey
) -> Certificate:
    """Return a certificate of `key`; without an issuer, that of an authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address(HOST))]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())
