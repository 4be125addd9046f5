"""How much slower a webhook is while Scalekit's API hangs and 200 portal links are asked for at once: a ratio of medians, from one run.

    python benchmarks/portal_outage.py [--rounds 5] [--webhooks 300]

The service (`provisioning serve`, on a SQLite file), the local Scalekit and those who ask for links are processes of their own. Each round
measures webhooks, one after another, without and then with the 200 requests; the quiet and the loaded times of all rounds are compared.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import httpx

from provisioning.scalekit.signature import sign

AT_ONCE = 200
SECRET = f"whsec_{b64encode(bytes(range(32))).decode()}"
KEY = "benchmark-key-0123456789-0123456789"
LINKS = "/v1/organizations/org_1/portal-links"
DEADLINE = 10.0  # seconds that a hanging call is given: how long a round of links lasts
NOWHERE = "http://127.0.0.1:1/"


def main() -> None:
    """Measure and print; leaves with 1 if the ratio is not below 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--webhooks", type=int, default=300, help="in each half of a round")
    parser.add_argument("--ask-for-links", metavar="URL", help=argparse.SUPPRESS)  # what the other processes run
    options = parser.parse_args()
    if options.ask_for_links:
        asyncio.run(_ask_for_links(options.ask_for_links))
        return
    quiet, loaded, answers = _measured(options.rounds, options.webhooks)
    for name, times in (("without", quiet), ("with", loaded)):
        p95 = quantiles(times, n=20)[-1]
        print(f"{name:>8}: median {median(times) * 1000:6.2f} ms, 95% {p95 * 1000:6.2f} ms, {len(times)} webhooks")
    ratio = median(loaded) / median(quiet)
    print(f"   links: {', '.join(f'{count} times {status}' for status, count in sorted(answers.items()))}")
    print(f"   ratio: {ratio:.2f} (below 2 is asked for)")
    raise SystemExit(ratio >= 2)


def _measured(rounds: int, webhooks: int) -> tuple[list[float], list[float], Counter[int]]:
    warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
    from provisioning.emulator.faults import Door, Fault  # noqa: PLC0415  # not for those who ask
    from provisioning.emulator.server import Emulator  # noqa: PLC0415

    quiet: list[float] = []
    loaded: list[float] = []
    answers: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder, Emulator(Path(folder) / "emulator", deliver_to=NOWHERE) as emulator:
        emulator.deliveries.switch({"paused": True})
        emulator.structure.add_organization("org_1", "org_1")
        environment = {**emulator.settings(), **emulator.trust()}
        with _service(Path(folder), environment) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            client.post(LINKS, headers={"Authorization": f"Bearer {KEY}"}).raise_for_status()  # the SDK is imported and signed in
            _times(client, "warm", webhooks)
            for number in range(rounds):
                quiet += _times(client, f"quiet{number}", webhooks)
                with emulator.faults.during(Door.API, Fault.HANG):
                    asking = _asking(url)
                    loaded += _times(client, f"loaded{number}", webhooks)
                    answers.update({int(status): count for status, count in json.loads(asking.communicate()[0]).items()})
    return quiet, loaded, answers


def _times(client: httpx.Client, name: str, webhooks: int) -> list[float]:
    """Seconds that each took, of new people all."""
    times = []
    for number in range(webhooks):
        webhook_id = f"msg_{name}_{number}"
        data = {"id": f"{name}-{number}", "organization_id": "org_1", "email": f"{name}-{number}@example.com"}
        envelope = {"id": f"evt_{number}", "type": "organization.directory.user_created", "occurred_at": "2026-01-01T00:00:00Z"}
        body = json.dumps({"spec_version": "1", "environment_id": "env_1", "organization_id": "org_1", **envelope, "data": data}).encode()
        now = int(time.time())
        headers = {"webhook-id": webhook_id, "webhook-timestamp": str(now), "webhook-signature": sign(SECRET, webhook_id, now, body)}
        began = time.perf_counter()
        answer = client.post("/webhooks/scalekit", content=body, headers=headers)
        times.append(time.perf_counter() - began)
        assert (answer.status_code, answer.json()["status"]) == (201, "processed"), answer.text
    return times


def _asking(url: str) -> subprocess.Popen[bytes]:
    """A process that asks for links; it says a line when all are under way."""
    process = subprocess.Popen([sys.executable, __file__, "--ask-for-links", url], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


async def _ask_for_links(url: str) -> None:
    """All at once, and, as an application that tries again would, once more for each that was refused, until the hanging ones end."""
    answers: Counter[int] = Counter()
    ends = time.monotonic() + DEADLINE - 3
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False) as client:

        async def ask() -> None:
            while True:
                answer = await client.post(LINKS, headers={"Authorization": f"Bearer {KEY}"})
                answers[answer.status_code] += 1
                if answer.status_code != 503 or time.monotonic() > ends:
                    return
                await asyncio.sleep(1)

        asking = [asyncio.create_task(ask()) for _ in range(AT_ONCE)]
        await asyncio.sleep(0)
        print(flush=True)
        await asyncio.gather(*asking)
    print(json.dumps(answers))


@contextmanager
def _service(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """`provisioning serve` on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours = {
        "SCALEKIT_WEBHOOK_SECRET": SECRET,
        "DATABASE_URL": f"sqlite:///{folder / 'provisioning.db'}",
        "PROVISIONING_API_KEYS": f"benchmark:{KEY}",
    }
    around = {**os.environ, **environment, **ours}
    command = [sys.executable, "-m", "provisioning.cli"]
    subprocess.run([*command, "migrate"], cwd=folder, env=around, check=True, stdout=subprocess.DEVNULL)
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen([*command, "serve", "--port", str(port)], cwd=folder, env=around, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str) -> None:
    for _ in range(600):
        try:
            httpx.get(f"{url}/health/ready", trust_env=False).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("The service did not become ready.")


if __name__ == "__main__":
    main()
