"""The way out to Scalekit's API: never on the event loop, never longer than one deadline, always failing as one error of ours.

The vendor's client is imported and built by the first call: its import takes 1.2 s, its constructor asks for a token and raises when
the API is away, and receiving webhooks needs neither.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, TypeVar

from provisioning.directory import Feature, Organization, PortalLink
from provisioning.errors import (
    ScalekitError,
    ScalekitNotConfigured,
    ScalekitRefused,
    ScalekitTimeout,
    ScalekitUnavailable,
    UnknownOrganization,
)
from provisioning.scalekit.organizations import By, get_organization
from provisioning.scalekit.pace import Pace
from provisioning.settings import Settings

if TYPE_CHECKING:
    from scalekit import ScalekitClient as VendorClient

Answer = TypeVar("Answer")
Failure = tuple[type[ScalekitError], str]
Tell = Callable[[str, str, float], None]

DEADLINE = 10.0  # seconds; design.md, Failures
THREADS = 16

MESSAGE_CHARACTERS = 500  # of the vendor's words, which may be a whole page of a proxy's

# design.md, Failures: what is away is a 504 like what is silent; 503 says that waiting helps.
REFUSED: Failure = (ScalekitRefused, "Scalekit refused the call, or gave an answer that cannot be used.")
AWAY: Failure = (ScalekitTimeout, "Scalekit cannot be reached.")
SILENT: Failure = (ScalekitTimeout, "Scalekit did not answer in time.")

# By the name of the gRPC status, which the SDK also derives from the status of a token request. What is not named here is REFUSED.
BUILDING: Mapping[str, Failure] = {
    "RESOURCE_EXHAUSTED": (ScalekitUnavailable, "Scalekit is limiting our calls."),
    "UNAUTHENTICATED": (ScalekitRefused, "Scalekit does not accept the service's credentials."),
    "UNAVAILABLE": AWAY,
    "DEADLINE_EXCEEDED": SILENT,
}
PASSING = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "ABORTED", "CANCELLED"})
# Only here: a token endpoint that is not found is a wrong environment URL.
CALLING: Mapping[str, Failure] = {**BUILDING, "NOT_FOUND": (UnknownOrganization, "Scalekit does not know this organization.")}

# What a call came to, in a word that is fit for a counter's label.
RESULTS: Mapping[type[ScalekitError], str] = {
    ScalekitRefused: "refused",
    ScalekitTimeout: "timeout",
    ScalekitUnavailable: "limited",
    UnknownOrganization: "unknown",
}


class ScalekitClient:
    """Calls to one Scalekit environment. Nothing happens before the first; `close` ends what still runs.

    A call that outlasts `deadline` seconds is answered with ScalekitTimeout, but its thread cannot be stopped: it keeps its place until
    the SDK lets go of it (a silent token endpoint: 30 s, a silent API: the deadline again). So an API that hangs costs `threads` threads
    and no more; the next call is refused at once. They are daemons: unlike those of an executor, they hold up no process that ends.
    """

    def __init__(self, settings: Settings, *, deadline: float = DEADLINE, threads: int = THREADS, tell: Tell = lambda *_: None) -> None:
        """`tell` hears of each call that ended: which one, what it came to, and after how many seconds."""
        self._settings = settings
        self._tell = tell
        self._deadline = deadline
        self.pace = Pace(settings.scalekit_calls_per_second)
        self._places = threading.BoundedSemaphore(threads)
        self._building: Future[VendorClient] | None = None
        self._building_lock = threading.Lock()

    async def sign_in(self) -> None:
        """Makes sure that the credentials are good for a token, once for all calls. Raises a ScalekitError: design.md, Failures."""
        self._credentials()
        await self._call(self._client)

    @property
    def url(self) -> str:
        """Where the environment is. Raises ScalekitNotConfigured."""
        return self._credentials()[0]

    def require_credentials(self) -> None:
        """Raises ScalekitNotConfigured, which says what is missing."""
        self._credentials()

    @property
    def configured(self) -> bool:
        """Whether there are credentials to call with."""
        return self._settings.has_credentials

    def call(self, name: str, function: "Callable[[VendorClient], Answer]", failures: Mapping[str, Failure] | None = None) -> Answer:
        """What `function`, a call of this name, makes of the vendor's client, in the caller's own thread: of use to who may wait.

        Raises a ScalekitError, whose `passing` says whether the same call may succeed in a while.
        """
        with self._left_when_silent():
            client = self._client()
            with self.calling(name, failures or CALLING):
                return function(client)

    @contextmanager
    def calling(self, name: str, failures: Mapping[str, Failure] = CALLING) -> Iterator[None]:
        """A call of this name: told of when it ends, and failing as one error of ours. Raises a ScalekitError."""
        began, result = perf_counter(), "ok"
        try:
            with _translated(failures):
                yield
        except ScalekitError as error:
            result = RESULTS.get(type(error), "refused")
            raise
        finally:
            self._tell(name, result, perf_counter() - began)

    async def portal_link(self, organization_id: str, features: Sequence[Feature] = ()) -> PortalLink:
        """A new link to the organization's admin portal, with these features or, if none is named, with those that Scalekit chooses.

        Raises a ScalekitError: design.md, Failures.
        """
        self._credentials()
        self.pace.pass_by()
        return await self._call(partial(self._portal_link, organization_id, features))

    async def organization(self, by: By, text: str) -> Organization:
        """The organization that is called so, by either of its ids. Raises a ScalekitError: design.md, Failures."""
        self._credentials()
        self.pace.pass_by()
        return await self._call(lambda: self.call("GetOrganization", lambda vendor: get_organization(vendor, by, text)))

    def close(self) -> None:
        """Cuts the connection: a call that waits for the API ends, one that waits for a token when it times out."""
        if self._building and self._building.done() and not self._building.exception():
            self._building.result().core_client.grpc_secure_channel.close()

    async def _call(self, function: Callable[[], Answer]) -> Answer:
        if not self._places.acquire(blocking=False):
            raise ScalekitUnavailable("Too many calls to Scalekit are waiting.")
        future: Future[Answer] = Future()
        future.set_running_or_notify_cancel()  # the deadline cannot cancel it, only stop waiting for it
        threading.Thread(target=self._run, args=(function, future), name="scalekit", daemon=True).start()
        try:
            with self._left_when_silent():
                async with asyncio.timeout(self._deadline):
                    return await asyncio.wrap_future(future)
        except TimeoutError:
            raise _failure(SILENT) from None

    def _run(self, function: Callable[[], Answer], future: Future[Answer]) -> None:
        try:
            answer = function()
        except Exception as error:  # broad: it belongs to whoever waits for the call
            self._places.release()
            future.set_exception(error)
        else:
            self._places.release()
            future.set_result(answer)

    def _portal_link(self, organization_id: str, features: Sequence[Feature]) -> PortalLink:
        client = self._client()
        with self.calling("GeneratePortalLink"):
            link = client.organization.generate_portal_link(organization_id, features=[feature.value for feature in features])
            if not link.location or not link.HasField("expire_time"):
                raise _failure(REFUSED, "a portal link without a location or without an expiry")
            return PortalLink(id=link.id, location=link.location, expires_at=link.expire_time.ToDatetime(tzinfo=UTC))

    def _client(self) -> "VendorClient":
        """The vendor's client. Calls that come while one of them builds it share that one's outcome; a failure is not kept."""
        with self._building_lock:
            building, first = self._building, self._building is None
            if building is None:
                building = self._building = Future()
        if first:
            try:
                building.set_result(self._build())
            except BaseException as error:  # broad: others wait for it
                self._leave(building)
                building.set_exception(error)
        return building.result()

    @contextmanager
    def _left_when_silent(self) -> Iterator[None]:
        """Have the next call build another client when nothing was heard until the deadline: where a NAT has forgotten the connection, the
        SDK would not notice for a minute.
        """
        used, began = self._building, monotonic()
        try:
            yield
        except (TimeoutError, ScalekitTimeout):
            if used and monotonic() - began >= self._deadline:
                self._leave(used)
            raise

    def _leave(self, building: "Future[VendorClient]") -> None:
        with self._building_lock:
            if self._building is building:
                self._building = None

    def _build(self) -> "VendorClient":
        url, client_id, client_secret = self._credentials()
        with self.calling("token", BUILDING):
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes past the log, in a form of its own; errors are raised as well
            from scalekit import ScalekitClient as VendorClient  # noqa: PLC0415  # 1.2 s

            return VendorClient(url, client_id, client_secret, call_timeout_s=self._deadline)

    def _credentials(self) -> tuple[str, str, str]:
        settings = self._settings
        secret = settings.scalekit_client_secret
        given = {
            "SCALEKIT_ENVIRONMENT_URL": settings.scalekit_environment_url or "",
            "SCALEKIT_CLIENT_ID": settings.scalekit_client_id or "",
            "SCALEKIT_CLIENT_SECRET": secret.get_secret_value() if secret else "",
        }
        if missing := [name for name, value in given.items() if not value]:
            raise ScalekitNotConfigured(f"Not configured for calls to Scalekit: set {', '.join(missing)}.")
        url, client_id, client_secret = given.values()
        return url, client_id, client_secret


@contextmanager
def _translated(failures: Mapping[str, Failure]) -> Iterator[None]:
    """Turns whatever the SDK raises into one error of ours."""
    try:
        yield
    except ScalekitError:
        raise
    except Exception as error:  # broad: the SDK raises its own errors, a bare Exception, and what its JSON and protobuf libraries raise
        status = getattr(error, "grpc_status", None)
        if status is not None:
            words = getattr(error, "message", None) or getattr(error, "err_details", None)
            raise _failure(failures.get(status.name, REFUSED), f"{status.name}: {words}", passing=status.name in PASSING) from error
        # It wraps what `requests` raised, which are OSErrors.
        unreachable = bool(error.args) and isinstance(error.args[0], OSError)
        raise _failure(AWAY if unreachable else REFUSED, f"{type(error).__name__}: {error}", passing=unreachable) from error


def _failure(failure: Failure, vendor_message: str = "", *, passing: bool = False) -> ScalekitError:
    kind, message = failure
    return kind(message, vendor_message[:MESSAGE_CHARACTERS], passing=passing)
