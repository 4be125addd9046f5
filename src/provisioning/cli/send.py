"""Posts events to a running service, signed as Scalekit signs them."""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import typer
from pydantic import SecretStr
from rich.progress import track

from provisioning.cli.terminal import print_table, stderr
from provisioning.errors import ConfigurationError
from provisioning.scalekit.signature import sign
from provisioning.settings import load_settings

TIMEOUT_SECONDS = 15.0  # more than the 10 that Scalekit waits: a slow answer is shown, not cut off
MANY = 20


@dataclass(frozen=True)
class Answer:
    """What became of one file; `outcome` is the service's word for it, or why there is none."""

    file: str
    webhook_id: str | None
    status: int | None
    outcome: str
    event_id: str | None
    milliseconds: int | None

    @property
    def good(self) -> bool:
        """Whether Scalekit would take the answer for a success."""
        return self.status is not None and 200 <= self.status < 300


def send(files: list[str], url: str, webhook_id: str | None) -> None:
    """Send each file and print the answers. Leaves with 1 unless all were 2xx. Raises ConfigurationError when nobody listens at `url`."""
    if webhook_id and len(files) > 1:
        raise typer.BadParameter("--webhook-id names one delivery: give one file with it.")
    if webhook_id is not None and not (webhook_id.isascii() and webhook_id.isprintable() and webhook_id.strip()):
        raise typer.BadParameter("--webhook-id takes visible ASCII characters, such as msg_1.")
    secret, *_ = load_settings().require_webhook_secrets()
    with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        shown = track(files, "Sending", console=stderr, transient=True, disable=len(files) < MANY or not stderr.is_terminal)
        answers = list(_sent(client, url, secret, shown, webhook_id))
    columns = ("file", "webhook-id", "status", "outcome", "event id", "ms")
    print_table(columns, [(each.file, each.webhook_id, each.status, each.outcome, each.event_id, each.milliseconds) for each in answers])
    if not all(each.good for each in answers):
        raise typer.Exit(1)


def _sent(client: httpx.Client, url: str, secret: SecretStr, files: Iterable[str], webhook_id: str | None) -> Iterator[Answer]:
    for file in files:
        try:
            body = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
            headers = _signed(secret, webhook_id or f"msg_{uuid4().hex}", body)
        except OSError as error:
            yield Answer(file, None, None, f"not sent: {error.strerror}", None, None)
        except UnicodeDecodeError:
            yield Answer(file, None, None, "not sent: not UTF-8", None, None)
        else:
            yield _posted(client, url, file, body, headers)


def _signed(secret: SecretStr, webhook_id: str, body: bytes) -> dict[str, str]:
    now = int(time.time())
    signature = sign(secret.get_secret_value(), webhook_id, now, body)
    return {"webhook-id": webhook_id, "webhook-timestamp": str(now), "webhook-signature": signature, "content-type": "application/json"}


def _posted(client: httpx.Client, url: str, file: str, body: bytes, headers: dict[str, str]) -> Answer:
    webhook_id = headers["webhook-id"]
    started = time.perf_counter()
    try:
        response = client.post(url, content=body, headers=headers)
    except (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(
            f"No service answers at {url}: start it with `provisioning dev`, or name another one with --url."
        ) from error
    except httpx.HTTPError as error:
        return Answer(file, webhook_id, None, f"no answer: {type(error).__name__}", None, _milliseconds(started))
    outcome, event_id = _read(response)
    return Answer(file, webhook_id, response.status_code, outcome, event_id, _milliseconds(started))


def _read(response: httpx.Response) -> tuple[str, str | None]:
    """The outcome and the event id of a success, or a problem's own words (RFC 9457)."""
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        return response.reason_phrase, None
    if response.is_success:
        return str(answer.get("status")), answer.get("event_id")
    return str(answer.get("detail") or answer.get("title") or response.reason_phrase), None


def _milliseconds(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)
