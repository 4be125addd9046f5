"""What the API's description says is so: whatever schemathesis makes of it and sends, valid or not, is answered as it declares."""

import json
import re
import subprocess
import sysconfig
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from databases import Databases
from delivering import Delivering, delivering
from operators import KEY, Running

PROGRAM = Path(sysconfig.get_path("scripts"), "schemathesis")
ONE_SCOPE = {scope: f"only-{scope}".ljust(32, "0") for scope in ("read", "portal", "operate")}
CALLERS = {KEY: 40, **dict.fromkeys(ONE_SCOPE.values(), 5), "nobody's": 2}  # and how many requests of each kind, an operation
CONFIGURATION = """
[[operations]]
include-path = "/v1/changes"
parameters = { wait = 0 }  # else it waits

[[operations]]
include-path = "/v1/deliveries/replay"
checks = { allow_header_conformance = { enabled = false } }  # the delivery `replay` can be read there
"""


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_every_answer_is_declared(request: pytest.FixtureRequest, tmp_path: Path, say: Callable[[str], None], kind: str) -> None:
    """No 500, no status, header, media type or shape that is not in it; nothing is let in without a key, or accepted that it forbids."""
    databases: Databases = request.getfixturevalue(f"{kind}_databases")
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    keys = " ".join([f"tests:{KEY}", *(f"{scope}:{scope}:{key}" for scope, key in ONE_SCOPE.items())])
    began = time.monotonic()
    with databases.fresh(migrated=True) as url, delivering(tmp_path, url, PROVISIONING_API_KEYS=keys) as there, there.serving() as running:
        company(there)
        for key, examples in CALLERS.items():
            check(tmp_path, running, key, examples)
    lines = [json.loads(line) for line in running.stderr if line.startswith("{")]
    asked = [line for line in lines if line["event"] == "request"]
    answers = Counter(line["status"] for line in asked)
    assert not [line for line in lines if line["level"] == "error"]
    assert not {status for status in answers if status >= 500}
    assert answers.keys() >= {200, 201, 202, 400, 401, 403, 404, 405, 409, 422}  # all of which could have been wrong
    told = ", ".join(f"{number} × {status}" for status, number in sorted(answers.items()))
    say(f"{len(asked)} requests in {time.monotonic() - began:.0f} s: {told}")


def company(there: Delivering) -> None:
    """Somebody to ask for."""
    from provisioning.emulator.jobs import Job  # noqa: PLC0415  # as in `delivering`
    from provisioning.emulator.records import Provider  # noqa: PLC0415  # as above
    from provisioning.emulator.sample import people  # noqa: PLC0415  # as above
    from provisioning.emulator.sync import fill  # noqa: PLC0415  # as above

    parts = there.emulator.parts
    organization = parts.structure.add_organization("Acme", "acme")
    newcomers = people("acme.example")
    fill(parts, Job("sync"), parts.structure.add_directory(organization.id, Provider.OKTA).id, [next(newcomers) for _ in range(12)])
    assert there.settled()


def check(folder: Path, running: Running, key: str, examples: int) -> None:
    """Send what schemathesis thinks of, with this key."""
    what = [f"{running.url}/openapi.json", "--header", f"Authorization: Bearer {key}", "--max-examples", str(examples)]
    # A cursor is a text, but only one that was handed out is good.
    how = ["--exclude-checks", "positive_data_acceptance", "--continue-on-failure", "--generation-database", "none", "--warnings", "off"]
    # One worker, as by default: Hypothesis reads Python's sources, which several threads of Python 3.11 cannot do at once.
    command = [str(PROGRAM), "run", *what, *how, "--request-timeout", "60", "--no-color"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Selected: (\d\d)/\1\s+Tested: \1\b", done.stdout), done.stdout
