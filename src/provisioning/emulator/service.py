"""What the service under test says, asked over its own HTTP API with a key that may read."""

from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from provisioning.emulator.comparison import GroupAnswer, UserAnswer
from provisioning.errors import ProvisioningError

WITHIN = 5.0  # seconds


class ServiceSilent(ProvisioningError):
    """It cannot be reached, or answers something else than was asked for."""


_ADVICE = dict.fromkeys((401, 403, 503), " Does it have the API key that `emulator env` prints, or the emulator one of its own?")


class _Page(BaseModel):
    data: list[dict[str, Any]]
    next_cursor: str | None


_USERS, _GROUPS = TypeAdapter(list[UserAnswer]), TypeAdapter(list[GroupAnswer])
T = TypeVar("T")


class Service:
    """The service at `url`; `key` is one of its API keys with the scope `read`."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=WITHIN, trust_env=False)

    def user(self, organization_id: str, directory_user_id: str) -> dict[str, Any] | None:
        """The user behind whom this directory user stands, as the service answers it. Raises ServiceSilent."""
        found = list(self._list(organization_id, "users", {"directory_user_id": directory_user_id}))
        return found[0] if found else None

    def users(self, organization_id: str) -> list[UserAnswer]:
        """Everybody of an organization. Raises ServiceSilent."""
        return self._read(_USERS, organization_id, "users")

    def groups(self, organization_id: str) -> list[GroupAnswer]:
        """Every group of an organization that is not deleted. Raises ServiceSilent."""
        return self._read(_GROUPS, organization_id, "groups")

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _read(self, kind: TypeAdapter[list[T]], organization_id: str, what: str) -> list[T]:
        try:
            return kind.validate_python(list(self._list(organization_id, what, {"limit": "200"})))
        except ValidationError as error:
            raise ServiceSilent(f"The service at {self.url} answers something else than {what}.") from error

    def _list(self, organization_id: str, what: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        while True:
            try:
                answer = self._client.get(f"/v1/organizations/{quote(organization_id, safe='')}/{what}", params=query)
                answer.raise_for_status()
                page = _Page.model_validate_json(answer.content)
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                raise ServiceSilent(f"The service at {self.url} answered {status}.{_ADVICE.get(status, '')}") from error
            except ValidationError as error:
                raise ServiceSilent(f"The service at {self.url} answers something else than {what}.") from error
            except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed here, at the end
                raise ServiceSilent(f"The service at {self.url} does not answer: {type(error).__name__}.") from error
            yield from page.data
            if page.next_cursor is None:
                return
            query = {**query, "cursor": page.next_cursor}
