"""What the service under test says, asked over its own HTTP API with a key that may read."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError

from provisioning.emulator.comparison import GroupAnswer, UserAnswer
from provisioning.errors import ProvisioningError

WITHIN = 5.0  # seconds


class ServiceSilent(ProvisioningError):
    """It cannot be reached, or answers something else than was asked for: `status`, if that is an error."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


_ADVICE = dict.fromkeys((401, 403, 503), " Does it have the API key that `emulator env` prints, or the emulator one of its own?")


class _Page(BaseModel):
    data: list[dict[str, Any]]
    next_cursor: str | None


class _Because(BaseModel):
    kind: str


class _Role(BaseModel):
    role: str
    because: list[_Because]


class _Access(BaseModel):
    roles: list[_Role]


_USERS, _GROUPS = TypeAdapter(list[UserAnswer]), TypeAdapter(list[GroupAnswer])
T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)


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

    def roles_by_directory(self, organization_id: str, user: UserAnswer) -> list[str]:
        """Those of its roles that a directory gives; all of them, where the service is too old to say. Raises ServiceSilent."""
        try:
            access = self._get(_Access, organization_id, f"users/{quote(user.id, safe='')}/access", "access")
        except ServiceSilent as silence:
            if silence.status != HTTPStatus.NOT_FOUND:
                raise
            return user.roles
        return [role.role for role in access.roles if any(because.kind == "directory" for because in role.because)]

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
            page = self._get(_Page, organization_id, what, what, query)
            yield from page.data
            if page.next_cursor is None:
                return
            query = {**query, "cursor": page.next_cursor}

    def _get(self, shape: type[Answer], organization_id: str, path: str, what: str, query: dict[str, str] | None = None) -> Answer:
        try:
            answer = self._client.get(f"/v1/organizations/{quote(organization_id, safe='')}/{path}", params=query)
            answer.raise_for_status()
            return shape.model_validate_json(answer.content)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise ServiceSilent(f"The service at {self.url} answered {status}.{_ADVICE.get(status, '')}", status) from error
        except ValidationError as error:
            raise ServiceSilent(f"The service at {self.url} answers something else than {what}.") from error
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed here, at the end
            raise ServiceSilent(f"The service at {self.url} does not answer: {type(error).__name__}.") from error
