"""The emulator's certificate authority: trusted for loopback alone, and of no use to anybody else."""

import os
import ssl
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
import time_machine
from cryptography import x509

from provisioning.emulator.certificates import LIFETIME, RENEW_BEFORE, certificates


def test_they_stay_until_little_of_their_time_is_left(tmp_path: Path) -> None:
    """Whoever trusts a folder's authority trusts it at the next start too."""
    first = certificates(tmp_path).authority.read_bytes()

    assert certificates(tmp_path).authority.read_bytes() == first
    with time_machine.travel(timedelta(seconds=1) + LIFETIME - RENEW_BEFORE):
        assert certificates(tmp_path).authority.read_bytes() != first


@pytest.mark.parametrize("left", ["neither", "server.pem", "ca.pem"])
def test_a_start_that_ended_half_way_is_mended_by_the_next(tmp_path: Path, left: str) -> None:
    """The authority is always the one that signed the server's certificate."""
    other = certificates(tmp_path / "other")
    paths = certificates(tmp_path)
    for path, stale in ((paths.server, other.server), (paths.authority, other.authority)):
        if path.name != left:
            path.write_bytes(b"" if left == "neither" else stale.read_bytes())

    paths = certificates(tmp_path)

    server, authority = x509.load_pem_x509_certificates(paths.server.read_bytes())
    assert x509.load_pem_x509_certificate(paths.authority.read_bytes()) == authority
    server.verify_directly_issued_by(authority)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths.server)


def test_only_their_owner_reads_the_key_and_the_authoritys_is_kept_nowhere(tmp_path: Path) -> None:
    """One private key is written, the server's, even under an open umask."""
    umask = os.umask(0)
    try:
        paths = certificates(tmp_path / "new")
    finally:
        os.umask(umask)

    assert {path.name: path.stat().st_mode & 0o777 for path in paths.server.parent.iterdir()} == {"ca.pem": 0o600, "server.pem": 0o600}
    assert paths.server.parent.stat().st_mode & 0o777 == 0o700
    assert paths.server.read_text().count("PRIVATE KEY-----\n") == 2
    assert "PRIVATE KEY" not in paths.authority.read_text()


def test_the_authority_may_sign_for_loopback_alone(tmp_path: Path) -> None:
    """Names and addresses both: a constraint on one of them leaves the other free (RFC 5280, section 4.2.1.10)."""
    authority = x509.load_pem_x509_certificate(certificates(tmp_path).authority.read_bytes())

    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)

    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("localhost"), x509.IPAddress(ip_network("127.0.0.1/32"))]
    assert authority.not_valid_after_utc - authority.not_valid_before_utc < timedelta(days=8)
