"""What the service under test says, asked over its own HTTP API with a key that may read."""

from collections.abc import Iterator
from typing import Any

import httpx

from provisioning.errors import ProvisioningError

WITHIN = 10.0  # seconds


class ServiceSilent(ProvisioningError):
    """It cannot be reached, or answers something else than was asked for."""


class Service:
    """The service at `url`; `key` is one of its API keys with the scope `read`."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=WITHIN, trust_env=False)

    def user(self, organization_id: str, directory_user_id: str) -> dict[str, Any] | None:
        """The user behind whom this directory user stands, as the service answers it. Raises ServiceSilent."""
        found = list(self._list(organization_id, "users", {"directory_user_id": directory_user_id}))
        return found[0] if found else None

    def users(self, organization_id: str) -> Iterator[dict[str, Any]]:
        """Everybody of an organization. Raises ServiceSilent."""
        return self._list(organization_id, "users", {"limit": "200"})

    def groups(self, organization_id: str) -> Iterator[dict[str, Any]]:
        """Every group of an organization that is not deleted. Raises ServiceSilent."""
        return self._list(organization_id, "groups", {"limit": "200"})

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _list(self, organization_id: str, what: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        while True:
            try:
                answer = self._client.get(f"/v1/organizations/{organization_id}/{what}", params=query)
                answer.raise_for_status()
                page = answer.json()
            except httpx.HTTPStatusError as error:
                raise ServiceSilent(f"The service at {self.url} answered {error.response.status_code}.") from error
            except (httpx.HTTPError, ValueError) as error:
                raise ServiceSilent(f"The service at {self.url} does not answer: {type(error).__name__}.") from error
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            query = {**query, "cursor": page["next_cursor"]}
