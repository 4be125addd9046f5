"""Every failure this service names, in one tree. The edge chooses the answer: api/problems.py for HTTP, cli for commands.

ProvisioningError                the message is safe to show: never a value out of a request, a payload or a driver
├── ConfigurationError           a setting or an argument is wrong: says which, why, and what a good one looks like
├── Refused                      a webhook that is not provably Scalekit's: 400, nothing stored
├── Unreadable                   signed, but not an event we can read: kept as dead_lettered
├── Unavailable                  the database is away, stalled or over-loaded: 503, the sender tries again
├── TokenRefused                 a visitor's token that is not good: 401
├── KeysUnavailable              whether it is good cannot be said now: 503
├── NotAllowed                   the caller is known, and may not do this: 403
├── NotFound                     no such record: 404
├── Conflict                     it contradicts what is there: 409
├── NotReplayable                its payload was not kept: 409
├── Forgotten                    a place in the change log from where nothing can be read without a gap: 410
├── ClockOff                     this machine's clock and Scalekit's are too far apart: a run fails
├── InvalidCursor                a page cursor we did not make: 422
└── ScalekitError                an outgoing call failed; the vendor's own words are in `vendor_message`, for the log only
    ├── ScalekitNotConfigured    no API credentials: 503
    ├── UnknownOrganization      404
    ├── ScalekitRefused          it refused, or answered nonsense: 502
    ├── ScalekitUnavailable      it limits our calls, or too many of them wait here: 503
    └── ScalekitTimeout          silent past the deadline, or away: 504
"""

from typing import Literal

RefusalReason = Literal["encoding", "expired", "malformed", "missing", "signature", "too_large", "too_slow"]
"""Why a webhook was refused: fixed words, fit for a counter's label."""


class ProvisioningError(Exception):
    """The base of the tree; `str()` of it may be shown to anyone."""


class ConfigurationError(ProvisioningError):
    """A setting or an argument is wrong."""


class Refused(ProvisioningError):
    """A webhook whose signature, time or shape does not prove that Scalekit sent it."""

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Unreadable(ProvisioningError):
    """A signed body that is not an event we can read; the message says why, without quoting the body."""


class Unavailable(ProvisioningError):
    """The database cannot take the work now. `retry_after` is in seconds."""

    def __init__(self, message: str = "The database is not available.", retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TokenRefused(ProvisioningError):
    """A visitor's token that is not good; the message is of fixed words, and says no more than whoever sent it knows."""


class KeysUnavailable(ProvisioningError):
    """The keys that tokens are checked with cannot be fetched. `retry_after` is in seconds."""

    retry_after = 5

    def __init__(self, message: str = "Tokens cannot be checked now: their issuer's keys are not available.") -> None:
        super().__init__(message)


class NotAllowed(ProvisioningError):
    """The caller is known, and has no right to this."""


class NotFound(ProvisioningError):
    """There is no such record for this caller."""


class Conflict(ProvisioningError):
    """What was asked for contradicts what is there now; the message says what to do first."""


class NotReplayable(ProvisioningError):
    """The delivery cannot be handled again: its payload was not kept."""


class Forgotten(ProvisioningError):
    """Between this place in the change log and what is kept of it something may be missing; the message says how to begin anew."""


class ClockOff(ProvisioningError):
    """This machine's clock is not Scalekit's; the message says by how much."""


class InvalidCursor(ProvisioningError):
    """The `cursor` of a list was not one that this service handed out."""


class ScalekitError(ProvisioningError):
    """A call to Scalekit's API failed. `vendor_message` goes to the log, never into an answer.

    `passing`: whether the same call may succeed in a while.
    """

    retry_after: int | None = None

    def __init__(self, message: str, vendor_message: str = "", *, passing: bool = False) -> None:
        super().__init__(message)
        self.vendor_message = vendor_message
        self.passing = passing


class ScalekitNotConfigured(ScalekitError):
    """What was asked for needs API credentials that are not set; the message names them."""


class UnknownOrganization(ScalekitError):
    """Scalekit does not know this organization."""


class ScalekitRefused(ScalekitError):
    """Scalekit refused the call, or answered something that cannot be used."""


class ScalekitUnavailable(ScalekitError):
    """Scalekit limits our calls, or the pool of calls here is full."""

    retry_after = 5


class ScalekitTimeout(ScalekitError):
    """Scalekit did not answer within the deadline."""
