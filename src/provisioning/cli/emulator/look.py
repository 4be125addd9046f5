"""Asks the control API how things are, and shows it."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import typer
from pydantic import BaseModel, ConfigDict

from provisioning.cli.emulator.control import Control, State
from provisioning.cli.emulator.show import print_answer, print_json, print_rows
from provisioning.cli.terminal import plain, print_table


class _Shown(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Attempt(_Shown):
    """One request: the service's status and word, or why there is neither."""

    at: str
    milliseconds: int
    status: int | None
    outcome: str | None
    error: str | None


class Delivery(_Shown):
    """An event under one webhook-id."""

    id: str
    type: str
    subject: str | None
    progress: str
    attempts: list[Attempt]


class Deliveries(_Shown):
    """The last ones."""

    data: list[Delivery]


class Rows(_Shown):
    """Things to show as they are; `total` is how many there are besides."""

    data: list[dict[str, object]]
    total: int = 0


class Comparison(_Shown):
    """How many people were compared, and where the two sides differ."""

    equal: bool
    compared: int
    differences: list[dict[str, object]]


def print_exports(folder: Path) -> None:
    """Print a line for a shell for each setting that points a service at the emulator."""
    with Control(folder) as control:
        for name, value in control.address.environment.items():
            typer.echo(f"export {name}={shlex.quote(value)}")


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print how everything is."""
    with Control(folder) as control:
        answer = control.get("/state")
    if as_json:
        print_json(answer)
        return
    state = State.model_validate(answer)
    print_answer(dict(_status(state)))
    typer.echo("")
    columns = ("organization", "organization_id", "directory", "provider", "enabled", "users", "active", "groups")
    print_rows(columns, list(_directories(state)))


def list_people(folder: Path, query: Mapping[str, object], *, as_json: bool) -> None:
    """Print a directory's people; how many more there are is said on stderr."""
    columns = ("email", "given_name", "family_name", "state", "groups", "roles", "department", "title", "id")
    _list(folder, "/users", columns, query, as_json=as_json)


def list_groups(folder: Path, query: Mapping[str, object], *, as_json: bool) -> None:
    """Print a directory's groups."""
    _list(folder, "/groups", ("name", "members", "role", "external_id", "id"), query, as_json=as_json)


def list_deliveries(folder: Path, query: Mapping[str, object], *, as_json: bool) -> None:
    """Print the last deliveries, each with its last attempt."""
    with Control(folder) as control:
        answer = control.get("/deliveries", **query)
    if as_json:
        print_json(answer)
        return
    columns = ("id", "type", "subject", "progress", "attempts", "status", "outcome", "ms", "at")
    print_table(columns, [_row(each) for each in Deliveries.model_validate(answer).data])


def show_delivery(folder: Path, webhook_id: str, *, as_json: bool) -> None:
    """Print one delivery, its attempts and its event, which holds personal data, though of people who are made up."""
    with Control(folder) as control:
        answer = control.get(f"/deliveries/{quote(webhook_id, safe='')}")
    if as_json:
        print_json(answer)
        return
    print_answer({name: value for name, value in answer.items() if name not in ("attempts", "body")})
    typer.echo("")
    columns = ("at", "milliseconds", "status", "outcome", "error")
    print_rows(columns, [attempt.model_dump() for attempt in Delivery.model_validate(answer).attempts])
    typer.echo("")
    for line in json.dumps(answer.get("body"), indent=2, ensure_ascii=False).split("\n"):
        typer.echo(plain(line))


def show_comparison(folder: Path, query: Mapping[str, object], *, as_json: bool) -> None:
    """Print the differences. Leaves with 1 if there is one."""
    with Control(folder) as control:
        answer = control.get("/comparison", **query)
    found = Comparison.model_validate(answer)
    if as_json:
        print_json(answer)
    elif found.equal:
        typer.echo(f"Equal: the service says of {found.compared} people what the directories say.")
    else:
        print_rows(("email", "field", "directory", "service", "directory_user_id"), found.differences)
    if not found.equal:
        raise typer.Exit(1)


def _list(folder: Path, path: str, columns: tuple[str, ...], query: Mapping[str, object], *, as_json: bool) -> None:
    with Control(folder) as control:
        answer = control.get(path, **query)
    if as_json:
        print_json(answer)
        return
    found = Rows.model_validate(answer)
    print_rows(columns, found.data)
    if found.total > len(found.data):
        typer.echo(f"{len(found.data)} of {found.total}: --limit shows more, --query fewer.", err=True)


def _status(state: State) -> Iterator[tuple[str, object]]:
    counts, faults = state.deliveries, {door: fault for door, fault in state.faults.items() if fault}
    yield "delivers to", f"{state.endpoint.url}{', signing with two secrets' if state.endpoint.rotating else ''}"
    yield "service", state.service
    yield "deliveries", f"{counts.delivered} delivered, {counts.waiting} waiting, {counts.given_up} given up; {counts.attempts} attempts"
    yield "switches", {name: value for name, value in state.switches.items() if value}
    yield "faults", faults
    yield "portal", f"{state.dialect}; embedded by {', '.join(state.embedding_origins) or 'nobody'}"
    if job := state.job:
        yield "job", f"{job.name}: {job.state}{f', {job.step}' if job.step else ''}{f' ({job.error})' if job.error else ''}"


def _directories(state: State) -> Iterator[dict[str, object]]:
    for organization in state.organizations:
        named: dict[str, object] = {"organization": organization.name, "organization_id": organization.id}
        for directory in organization.directories:
            yield {**named, **directory.model_dump(), "directory": directory.id}
        if not organization.directories:
            yield named


def _row(delivery: Delivery) -> tuple[object, ...]:
    last = delivery.attempts[-1] if delivery.attempts else Attempt(at="-", milliseconds=0, status=None, outcome=None, error=None)
    outcome = last.outcome or last.error
    tail = (last.status, outcome, last.milliseconds, last.at)
    return (delivery.id, delivery.type, delivery.subject, delivery.progress, len(delivery.attempts), *tail)
