"""The onboarding that the README walks through: a customer is made, opens the portal, enables a directory, and everything follows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from operators import SECONDS, Operator, Running, until


class Walk:
    """What an operator does to the local Scalekit, and what the service then says over its API."""

    def __init__(self, service: Running, folder: Path) -> None:
        facts = json.loads((folder / ".provisioning/emulator/control.json").read_text())
        self._service, self._emulator, self._token = service, facts["url"], facts["token"]
        self._key = (folder / ".provisioning/api-key").read_text().strip()
        self.organization_id = self.do("add-organization", name="Initech")["id"]

    def do(self, action: str, **body: object) -> Any:
        """Do it to the local Scalekit."""
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = httpx.post(f"{self._emulator}/control/{action}", json=body, headers=headers, timeout=SECONDS, trust_env=False)
        return answer.raise_for_status().json()

    def ask(self, path: str, method: str = "GET", **parameters: str | int) -> Any:
        """What the service answers about the organization."""
        headers = {"Authorization": f"Bearer {self._key}"}
        url = f"{self._service.url}/v1/organizations/{self.organization_id}/{path}"
        answer = httpx.request(method, url, params=parameters, headers=headers, timeout=SECONDS, trust_env=False)
        return answer.raise_for_status().json()

    def user(self, email: str) -> dict[str, Any] | None:
        """The user with this e-mail, over the service's API."""
        found: list[dict[str, Any]] = self.ask("users", email=email)["data"]
        return found[0] if found else None


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    with Operator(tmp_path).started("dev") as service:
        yield Walk(service, tmp_path)


def test_an_onboarding_from_the_portal_to_the_first_leaver(page: Page, walk: Walk) -> None:
    """The people who were in the directory before are told by no webhook: the first import finds them. Webhooks tell the rest."""
    page.goto(walk.ask("portal-links", "POST")["location"])
    page.get_by_label("Okta").check()
    page.get_by_role("button", name="Enable sync from Okta").click()
    expect(page.get_by_role("button", name="Disable sync from Okta")).to_be_enabled()
    until(lambda: [each["enabled"] for each in walk.ask("directories")["data"]] == [True])
    directory_id = walk.ask("directories")["data"][0]["id"]
    walk.do("sync", directory=directory_id, users=25, silent=True)

    until(lambda: len(walk.ask("users", limit=200)["data"]) == 25)
    until(lambda: [run["state"] for run in walk.ask("reconciliations")["data"]] == ["done"])
    (run,) = walk.ask("reconciliations")["data"]
    assert (run["requested_by"], run["changes"]["users_created"]) == ("organization.directory_enabled", 25)
    assert {each["directory_id"] for user in walk.ask("users", limit=200)["data"] for each in user["directory_users"]} == {directory_id}

    email = walk.do("hire", given_name="Peter", family_name="Gibbons", directory=directory_id, groups=["Sales"])["email"]
    until(lambda: [group["name"] for group in (walk.user(email) or {"groups": []})["groups"]] == ["Sales"])
    walk.do("rename", user=email, family_name="Lumbergh")
    until(lambda: (walk.user(email) or {})["family_name"] == "Lumbergh")
    walk.do("regroup", user=email, add=["Engineering"], remove=["Sales"])
    until(lambda: [group["name"] for group in (walk.user(email) or {})["groups"]] == ["Engineering"])
    walk.do("fire", user=email)
    until(lambda: (walk.user(email) or {})["active"] is False)
    assert (walk.user(email) or {})["groups"] == []
