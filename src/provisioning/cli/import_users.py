"""The application's own accounts, brought in from a file."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from provisioning import imports, logs
from provisioning.cli import arguments, sheet
from provisioning.cli.bars import progress
from provisioning.cli.database import opened
from provisioning.cli.sheet import Unread
from provisioning.cli.terminal import plain, print_table
from provisioning.db.session import Database
from provisioning.errors import ConfigurationError, NotFound, ProvisioningError, UnknownOrganization
from provisioning.imports import Account, Decided, Fate
from provisioning.organizations import is_external
from provisioning.settings import load_settings

_DONE = {Fate.LINKED: "linked to the user with the same e-mail", Fate.MADE: "made, for somebody to join", Fate.UNCHANGED: "as they were"}
_WHY = {
    Fate.REPEATED: "another line has the same e-mail or application id",
    Fate.AMBIGUOUS: "several users have this e-mail",
    Fate.LEFT_BEHIND: "the user with this e-mail has left",
    Fate.CALLED_OTHERWISE: "the user with this e-mail has another application id",
    Fate.TAKEN: "a user with another e-mail has this application id",
}
_UNKNOWN = "nothing is known of this organization"


@dataclass(frozen=True, slots=True)
class Left:
    """A line of which nothing is done, and why. What could not be read has no ids."""

    line: int
    reason: str
    why: str
    organization_id: str | None = None
    application_id: str | None = None
    user_ids: Sequence[str] = ()


def import_users(file: str, *, apply: bool, new_organizations: bool, as_json: bool) -> None:
    """Print what becomes of the accounts in the file, or without `apply` what would. Leaves with 2 where some are left.

    Those of organizations of which nothing is known are, unless these are `new_organizations`.

    Raises ConfigurationError, Unavailable.
    """
    raw = _bytes(file)
    settings = load_settings()
    logs.configure()
    with opened(settings) as database:
        with arguments.resolving(database, settings, keep=apply) as resolve:
            organizations = _Organizations(resolve)
            read = list(sheet.read(raw, organizations.meant))
        accounts = [each for each in read if isinstance(each, Account)]
        unknown = [each for each in imports.unknown_organizations(database, accounts) if each not in organizations.resolved]
        refused_of = frozenset() if new_organizations else frozenset(unknown)
        decided = _bring(database, [each for each in accounts if each.organization_id not in refused_of], apply=apply)
    left = [Left(each.line, "unread", each.why) for each in read if isinstance(each, Unread)]
    left += [
        Left(each.line, "unknown_organization", _UNKNOWN, each.organization_id, each.application_id)
        for each in accounts
        if each.organization_id in refused_of
    ]
    left += [_left(each) for each in decided if each.fate in _WHY]
    left.sort(key=lambda each: each.line)
    counts = Counter(each.fate for each in decided)
    if as_json:
        _print_json(counts, left, unknown, dry_run=not apply)
    else:
        _print(counts, left, dry_run=not apply)
    for words in _words(counts, unknown, new_organizations, settings.link_users_by_email == "never", dry_run=not apply):
        typer.echo(f"provisioning: {plain(words)}", err=True)
    if left:
        raise typer.Exit(2)


def _bytes(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"Cannot read {plain(file)}: {error.strerror}.") from error


class _Organizations:
    """The organizations that lines name, each looked for once."""

    def __init__(self, resolve: Callable[[str], str]) -> None:
        self.resolved = set[str]()  # those named as the application does: they are known, to Scalekit if not here
        self._resolve = resolve
        self._found: dict[str, str | ProvisioningError] = {}

    def meant(self, text: str) -> str:
        """The id of the one that is meant. Raises ConfigurationError; where it cannot be said, also a ScalekitError, Unavailable."""
        if text not in self._found:
            try:
                self._found[text] = self._looked_for(text)
            except (ConfigurationError, NotFound, UnknownOrganization) as error:
                self._found[text] = error
        one = self._found[text]
        if isinstance(one, ProvisioningError):
            raise ConfigurationError(str(one))
        return one

    def _looked_for(self, text: str) -> str:
        arguments.check_organization_id(text)
        if not is_external(text):
            return text
        found = self._resolve(text)
        self.resolved.add(found)
        return found


def _bring(database: Database, accounts: Sequence[Account], *, apply: bool) -> list[Decided]:
    decided: list[Decided] = []
    try:
        with progress() as bar:
            task = bar.add_task("accounts", total=len(accounts))
            for some in imports.bring(database, accounts, arguments.operator(), apply=apply):
                decided += some
                bar.update(task, completed=len(decided))
    except KeyboardInterrupt:
        if apply:
            words = f"Interrupted: at least {len(decided)} of {len(accounts)} accounts are done. It is safe to run it again."
            typer.echo(f"provisioning: {words}", err=True)
        raise typer.Exit(130) from None
    return decided


def _left(decided: Decided) -> Left:
    account = decided.account
    return Left(account.line, decided.fate, _WHY[decided.fate], account.organization_id, account.application_id, decided.user_ids)


def _print_json(counts: Mapping[Fate, int], left: Sequence[Left], unknown: Sequence[str], *, dry_run: bool) -> None:
    told = {
        "dry_run": dry_run,
        "counts": {str(fate): counts.get(fate, 0) for fate in _DONE},
        "left": [asdict(each) for each in left],
        "unknown_organizations": unknown,
    }
    typer.echo(json.dumps(told, indent=2))


def _print(counts: Mapping[Fate, int], left: Sequence[Left], *, dry_run: bool) -> None:
    rows = [(counts.get(fate, 0), what) for fate, what in _DONE.items()]
    print_table(("accounts", "would be" if dry_run else "are"), [*rows, (len(left), "left")])
    if left:
        typer.echo("")
        print_table(
            ("line", "why", "organization", "application id", "users"),
            [(each.line, each.why, each.organization_id, each.application_id, ", ".join(each.user_ids) or None) for each in left],
        )


def _words(counts: Mapping[Fate, int], unknown: Sequence[str], new: bool, never: bool, *, dry_run: bool) -> Iterator[str]:
    """What is to be said beside the result."""
    if unknown:
        them = f"{', '.join(unknown[:20])}{' and others' if len(unknown) > 20 else ''}"
        yield f"Nothing was known yet of {them}." if new else f"Nothing is known of {them}: spelt right? --new-organizations takes them."
    if counts.get(Fate.MADE) and never:
        yield "With PROVISIONING_LINK_USERS_BY_EMAIL=never nobody from a directory will join the accounts that are made."
    if dry_run:
        yield "This was a dry run: nothing is changed. With --apply it is done."
