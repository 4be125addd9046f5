"""The client of the emulator's control API, which is found by the file that a running emulator keeps in its folder."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from provisioning.cli.emulator.presence import runs_in
from provisioning.cli.terminal import plain
from provisioning.errors import ConfigurationError, ProvisioningError

TIMEOUT_SECONDS = 60.0  # a comparison reads a whole organization from the service

Answer = dict[str, object]


class ControlRefused(ProvisioningError):
    """The control API refused; the message is its own sentence."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Address(_Answer):
    """Where a running emulator is: `control.json`."""

    url: str
    token: str
    environment: dict[str, str]


class Job(_Answer):
    """Long work: `done` of `total`, which is 0 while nobody knows."""

    name: str
    state: Literal["running", "done", "failed", "cancelled"]
    step: str
    done: int
    total: int
    error: str | None


class Cancelled(_Answer):
    """The job that was ended, or had ended before; none when there never was one."""

    job: Job | None


class Counts(_Answer):
    """Deliveries by what has become of them, and all their attempts."""

    waiting: int
    delivered: int
    given_up: int
    attempts: int


class Directory(_Answer):
    """Whose people are how many."""

    id: str
    provider: str
    enabled: bool
    users: int
    active: int
    groups: int


class Organization(_Answer):
    """A customer and its directories."""

    id: str
    name: str
    directories: list[Directory]


class Endpoint(_Answer):
    """Where webhooks go."""

    url: str
    rotating: bool


class Scenario(_Answer):
    """Something to play."""

    name: str
    what: str


class State(_Answer):
    """What `GET /control/state` says, as far as commands show it."""

    organizations: list[Organization]
    endpoint: Endpoint
    switches: dict[str, int | float]
    faults: dict[str, str | None]
    deliveries: Counts
    job: Job | None
    service: str | None
    scenarios: list[Scenario]
    dialect: str
    embedding_origins: list[str]


class Control:
    """A context manager; inside it, calls. Each raises ControlRefused, or ConfigurationError when there is no emulator."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigurationError when no emulator runs in `folder`."""
        self._folder = folder
        self.address = self._found()
        headers = {"Authorization": f"Bearer {self.address.token}"}
        self._client = httpx.Client(base_url=f"{self.address.url}/control", headers=headers, timeout=TIMEOUT_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._client.close()

    def get(self, path: str, **query: object) -> Answer:
        """What is at `path`."""
        return self._answer(self._client.build_request("GET", path, params={name: str(value) for name, value in query.items()}))

    def post(self, action: str, body: Mapping[str, object]) -> Answer:
        """Do it; what has changed."""
        return self._answer(self._client.build_request("POST", f"/{action}", json=body))

    def state(self) -> State:
        """How everything is now."""
        return State.model_validate(self.get("/state"))

    def _answer(self, request: httpx.Request) -> Answer:
        try:
            response = self._client.send(request)
            said = response.json()
        except (httpx.ConnectError, httpx.RemoteProtocolError) as error:
            raise self._nobody() from error
        except httpx.HTTPError as error:
            raise ConfigurationError(f"The emulator at {self.address.url} does not answer: {type(error).__name__}.") from error
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise ConfigurationError(f"What answers at {self.address.url} is no emulator: start one again with `provisioning emulator`.")
        if not response.is_success:
            raise ControlRefused(plain(said.get("detail", response.reason_phrase)))
        return said

    def _found(self) -> Address:
        file = self._folder / "control.json"
        if not runs_in(self._folder):  # one that was killed left its address behind: whoever listens there now is none of ours
            raise self._nobody()
        try:
            return Address.model_validate_json(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._nobody() from error
        except OSError as error:
            raise ConfigurationError(f"Cannot read {file}: {error.strerror}.") from error
        except ValidationError as error:
            raise ConfigurationError(f"{file} is no emulator's: start one with `provisioning emulator`.") from error

    def _nobody(self) -> ConfigurationError:
        from provisioning.cli import local  # noqa: PLC0415 (to drive an emulator it is not needed)

        start = "./run" if local.program() == "./run" else "provisioning emulator"
        return ConfigurationError(f"No emulator runs in {self._folder}: start one with `{start}`, or name its --folder.")
