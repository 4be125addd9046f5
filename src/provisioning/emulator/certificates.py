"""A certificate authority that can sign nothing but this machine's loopback names, and nothing any more.

It is made at the first start and again when little of its week is left. Its own key is never written: once it has signed the server's
certificate, nobody can sign another that a client would trust with it.
"""

import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=7)
RENEW_BEFORE = timedelta(days=1)
CLOCK_MARGIN = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Certificates:
    """`authority`: what clients trust. `server`: the server's key and chain, readable by its owner alone. Both PEM."""

    authority: Path
    server: Path


def certificates(folder: Path) -> Certificates:
    """The certificates kept in `folder`, made there first if there are none or they soon expire."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = Certificates(authority=folder / "ca.pem", server=folder / "server.pem")
    if not _lasts(paths.server):
        _write(paths.server, _sign())
    # At every start: equal to the chain even if an earlier start ended between the two files.
    _write(paths.authority, _chain(paths.server)[-1].public_bytes(Encoding.PEM))
    return paths


def _lasts(server: Path) -> bool:
    try:
        return _chain(server)[0].not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE
    except (FileNotFoundError, ValueError):
        return False


def _chain(server: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(server.read_bytes())


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all; mkstemp makes the file 0600 from its first byte on."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with open(descriptor, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def _sign() -> bytes:
    """The server's key, its certificate and the authority's, one after another."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    server = _server(key.public_key(), authority, authority_key)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + server.public_bytes(Encoding.PEM) + authority.public_bytes(Encoding.PEM)


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Local Scalekit emulator (this machine only)")])
    loopback = x509.NameConstraints([x509.DNSName("localhost"), x509.IPAddress(ip_network("127.0.0.1/32"))], None)
    return (
        _certificate(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(loopback, critical=True)
        .sign(key, SHA256())
    )


def _server(key: ec.EllipticCurvePublicKey, authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    # No address beside the name: BoringSSL, so gRPC, refuses one under a constraint on addresses (measured).
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return (
        _certificate(name, authority.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, SHA256())
    )


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_MARGIN)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
