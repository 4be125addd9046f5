"""PgBouncer in front of a PostgreSQL, in transaction mode: a client's next transaction may run on another connection to the server."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from operators import SECONDS, free_port

SETTINGS = """\
[databases]
* = host={there.hostname} port={there.port} user={there.username}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 1000
"""


@contextmanager
def pooled(database_url: str, connections: int) -> Iterator[str]:
    """The database's URL by way of a PgBouncer that has so many connections to it. Fails the test where there is no PgBouncer."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        pytest.fail("This needs PgBouncer. On Debian and Ubuntu: apt-get install pgbouncer")
    there, port = urlsplit(database_url), free_port()
    url = there._replace(netloc=f"{there.username}@127.0.0.1:{port}").geturl()
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "pgbouncer.ini"), Path(folder, "log")
        file.write_text(SETTINGS.format(there=there, port=port, connections=connections))
        Path(folder).chmod(0o755)  # root's PgBouncer becomes another user, as it has to
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with log.open("w") as output, subprocess.Popen([program, *user, file], stdout=output, stderr=output) as process:
            try:
                _wait(url, process, log)
                yield url
            finally:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    limit = time.monotonic() + SECONDS
    while True:
        with suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=5):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.05)
