"""The operators' commands. Exit code 0: done; 1: failed, with one line on stderr that says what; 2: wrong usage, or what
`reconcile` and `import-users` leave to be done; 130: interrupted.

Commands are declared here and carried out by the modules beside, each imported when its command runs: importing them all takes more
than a second, which `--help`, a typing mistake or a shell's completion should not cost.
"""
# ruff: noqa: PLC0415 (imports where a command runs: see above)

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from provisioning.cli.emulator import emulator
from provisioning.cli.examples import examples
from provisioning.cli.hooks import hooks
from provisioning.directory import Feature
from provisioning.errors import ProvisioningError, Unavailable

app = typer.Typer(
    name="provisioning",
    help="Keeps an application's users, groups and roles as its customers' directories say, from Scalekit's signed webhooks.",
    epilog=examples("provisioning migrate", "provisioning serve --host 0.0.0.0 --workers 2", "provisioning deliveries list"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
inbox = typer.Typer(help="Look into the webhooks that were received, and handle one again.", no_args_is_help=True)
app.add_typer(inbox, name="deliveries")
app.add_typer(hooks, name="hooks")
app.add_typer(emulator, name="emulator")

Port = Annotated[int, typer.Option(envvar="PORT", min=1, max=65535, help="The port to listen on.")]


def main() -> None:
    """Run the command that the command line names, and leave with its exit code."""
    try:
        app()
    except Unavailable as error:
        _fail(f"{error} Is DATABASE_URL right, and the server running?")
    except ProvisioningError as error:
        _fail(str(error))
    except Exception as error:  # the only broad one: a traceback, or a driver's own words, may carry somebody's data
        from provisioning.logs import describe

        _fail(describe(error))


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"provisioning {version('provisioning')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")] = False,
    use_local: Annotated[
        bool, typer.Option("--local", help="Also heed what `dev` made up in the folder .provisioning, as ./run does for its commands.")
    ] = False,
) -> None:
    """Options that belong to no command."""
    if use_local:
        from provisioning.cli import local

        local.join()


@app.command("serve", epilog=examples("provisioning serve", "provisioning serve --host 0.0.0.0 --port 8080 --workers 2"))
def start(
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one of this machine.")] = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
) -> None:
    """Start the service: it receives Scalekit's webhooks and answers the application over HTTP.

    It does not migrate the database: until `provisioning migrate` has, /health/ready says so. SIGTERM ends it once the requests under way
    are answered, at most 8 seconds later.
    """
    from provisioning.cli.serve import serve

    serve(host, port, workers)


@app.command("dev", epilog=examples("provisioning dev", "provisioning dev --port 9000", "provisioning dev --fresh"))
def develop(
    port: Port = 8000, fresh: Annotated[bool, typer.Option("--fresh", help="Forget what is in .provisioning, and start over.")] = False
) -> None:
    """Start the service on this machine, with all that is missing made: what ./run does.

    Without Scalekit credentials a local Scalekit is started beside it, with a company to play with. What is made up (webhook secret, API
    key, database, company) is kept in the folder .provisioning, and the links to open are printed. Everything listens on 127.0.0.1 only.
    """
    from provisioning.cli.dev import dev

    dev(port, fresh=fresh)


@app.command("migrate", epilog=examples("provisioning migrate", "DATABASE_URL=postgresql://… provisioning migrate"))
def migrate_database() -> None:
    """Bring the database to this release's tables. Safe to run at any time, and from several machines at once."""
    from provisioning.cli.migrate import migrate

    migrate()


@app.command(
    "send",
    epilog=examples(
        "provisioning send event.json",
        "provisioning send tests/payloads/*.json",
        "provisioning send --webhook-id msg_1 event.json",
        "jq .event saved.json | provisioning send -",
    ),
)
def send_files(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="JSON files, each one event; - reads standard input.")],
    url: Annotated[str | None, typer.Option(help="Where to post to.", show_default="the service on this machine, at $PORT or 8000")] = None,
    webhook_id: Annotated[
        str | None, typer.Option(help="The webhook-id of a single file: the same one twice is a duplicate.", show_default="a new one each")
    ] = None,
) -> None:
    """Sign events as Scalekit does, with the first secret of SCALEKIT_WEBHOOK_SECRET, and post them to a running service.

    The bytes of a file are posted as they are, one after another. The exit code is 1 unless every answer was a 2xx.
    """
    from provisioning.cli.send import send

    send(files, url or f"http://127.0.0.1:{os.environ.get('PORT') or 8000}/webhooks/scalekit", webhook_id)


@app.command(
    "portal-link",
    epilog=examples("provisioning portal-link org_83543878963298576", "provisioning portal-link org_83543878963298576 --feature dir_sync"),
)
def make_portal_link(
    organization: Annotated[
        str, typer.Argument(metavar="ORG", help="The customer's organization, by Scalekit's id, or ext: and your own.")
    ],
    features: Annotated[
        list[Feature] | None,
        typer.Option("--feature", help="What may be configured; as often as you like.", show_default="Scalekit decides"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the HTTP API answers it.")] = False,
) -> None:
    """Print a link to the admin portal, to hand over in a call with the customer's admin: it opens once, within 60 s.

    To send a link by mail, make a shareable one in Scalekit's dashboard instead: it lives 7 days.
    """
    from provisioning.cli.portal import portal_link

    portal_link(organization, features or [], as_json=as_json)


@app.command(
    "reconcile",
    epilog=examples(
        "provisioning reconcile org_83543878963298576 --dry-run",
        "provisioning reconcile org_83543878963298576",
        "provisioning reconcile --all --json | jq '.runs[].changes'",
        "provisioning reconcile --approve run_019aab6c2f405f2d8a1b9c3e",
    ),
)
def reconcile_organizations(
    organizations: Annotated[
        list[str] | None,
        typer.Argument(metavar="ORG…", help="The customers' organizations, by Scalekit's ids, or ext: and your own.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every organization that is known here.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what differs, and change nothing.")] = False,
    approve: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Let this run remove what it held back, as far as it is still gone.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, each run as the HTTP API answers it.")] = False,
) -> None:
    """Read organizations' directories whole, through Scalekit's API, and bring users, groups and roles here to what they say.

    It works in this process: no service has to run. Where a run is under way already, it is followed. Who is missing from the directory
    is deactivated only in small numbers; more waits for --approve. Ctrl-C cancels; what was changed by then stays.

    The exit code is 0 when it is done, 1 when a run failed or was cancelled, 2 when a dry run found something or an approval is needed,
    130 after Ctrl-C. What is `unsettled` is newer than the listing: the next run settles it.
    """
    from provisioning.cli.reconcile import reconcile

    reconcile(organizations or [], everything=everything, approve=approve, dry_run=dry_run, as_json=as_json)


Organization = Annotated[str, typer.Argument(metavar="ORG", help="The customer's organization, by Scalekit's id, or ext: and your own.")]


@app.command(
    "explain",
    epilog=examples(
        "provisioning explain org_83543878963298576 jane@example.com",
        "provisioning explain org_83543878963298576 diruser_70687244567806212",
        "provisioning explain org_83543878963298576 jane@example.com --json | jq '.roles[].because'",
    ),
)
def explain_access(
    organization: Organization,
    user: Annotated[str, typer.Argument(metavar="USER", help="Our id, a directory user's id, an e-mail, or the application's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the HTTP API answers it.")] = False,
) -> None:
    """Say whether somebody has access and why: what the directories say, and what each group and role comes from.

    Of somebody without access it says why not, and what would give it back. Where several users have the e-mail, their ids are named on
    stderr, and the exit code is 1: ask for one by id.
    """
    from provisioning.cli.explain import explain

    explain(organization, user, as_json=as_json)


@app.command(
    "history",
    epilog=examples(
        "provisioning history org_83543878963298576 jane@example.com",
        "provisioning history org_83543878963298576 Engineering --limit 100",
        "provisioning history org_83543878963298576 jane@example.com --json | jq '.data[].cause'",
    ),
)
def show_history(
    organization: Organization,
    whom: Annotated[str, typer.Argument(metavar="WHOM", help="A user as for `explain`; or a group's id, or its exact name.")],
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many changes.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the HTTP API answers it.")] = False,
) -> None:
    """What happened to a user or a group, newest first: when there and when here, what, and by which delivery, run or operator.

    `deliveries show` has more of a delivery. It goes back as far as changes are kept.
    """
    from provisioning.cli.history import history

    history(organization, whom, limit=limit, as_json=as_json)


@app.command(
    "import-users",
    epilog=examples(
        "provisioning import-users accounts.csv",
        "provisioning import-users accounts.csv --apply",
        "provisioning import-users - --json < accounts.csv | jq .left",
    ),
)
def import_accounts(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV in UTF-8; - reads standard input.")],
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, it is only said what would be done.")] = False,
    new_organizations: Annotated[
        bool, typer.Option("--new-organizations", help="Also accounts of organizations of which nothing is known here yet.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Have the accounts that the application had before joined by people from the directories, not doubled: each gets its application id.

    The file's first line names its columns: organization, email and application_id, and if you like name and active (true or false, of
    accounts that are made). The user with an account's e-mail is linked to it; where nobody has the e-mail, an account is made, and whoever
    comes from the directory with it joins that. To do it again does no harm.

    The exit code is 0 when all is well, 2 when lines are left, each listed with the reason, also of a dry run, and 1 when it failed.
    """
    from provisioning.cli.import_users import import_users

    import_users(file, apply=apply, new_organizations=new_organizations, as_json=as_json)


@app.command("refresh", epilog=examples("provisioning refresh --all", "provisioning refresh org_83543878963298576"))
def refresh_organizations(
    organizations: Annotated[
        list[str] | None,
        typer.Argument(metavar="ORG…", help="The customers' organizations, by Scalekit's ids, or ext: and your own.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every organization that is known here.")] = False,
) -> None:
    """Work out again, for every user, what it shows: from the directories' records and the roles given here, without asking Scalekit.

    For when an older release ran beside this one after a migration, or somebody changed the database by hand. What was amiss is mended and
    goes into the change log; where nothing was, nothing changes. Webhooks go on meanwhile.
    """
    from provisioning.cli.refresh import refresh

    refresh(organizations or [], everything=everything)


UserAnywhere = Annotated[str, typer.Argument(metavar="USER", help="Our id, a directory user's id, or an e-mail.")]
OfOrganization = Annotated[
    str | None, typer.Option(metavar="ORG", help="Only in this organization; needed where several have such a user.", show_default=False)
]
By = Annotated[str | None, typer.Option(metavar="NAME", help="Who says so.", show_default="who is logged in here")]


@app.command(
    "export",
    epilog=examples(
        "provisioning export jane@example.com --organization org_83543878963298576 --output jane.json",
        "provisioning export usr_019aab6c2f405f2d8a1b9c3e4d5f | jq .changes",
    ),
)
def export_person(
    user: UserAnywhere,
    organization: OfOrganization = None,
    output: Annotated[Path | None, typer.Option(help="A new file, for its owner alone.", show_default="standard output")] = None,
) -> None:
    """Hand over everything that is stored of somebody, as JSON: account, records, groups, roles, changes, deliveries, findings of runs."""
    from provisioning.cli.privacy import export

    export(user, organization, output)


@app.command(
    "erase",
    epilog=examples(
        "provisioning erase jane@example.com --organization org_83543878963298576",
        "provisioning erase usr_019aab6c2f405f2d8a1b9c3e4d5f --yes --by Ada",
        "provisioning erase --lift usr_019aab6c2f405f2d8a1b9c3e4d5f",
    ),
)
def erase_person(
    user: UserAnywhere,
    organization: OfOrganization = None,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    lifted: Annotated[bool, typer.Option("--lift", help="Instead, let what is said of somebody who was erased come in again.")] = False,
    by: By = None,
) -> None:
    """Erase all that is stored of somebody, for good: account, records, values in the change log, payloads of deliveries, findings of runs.

    Ids stay, so that nothing late brings the person back: events about them are ignored, and a reconcile says `erased, still in the
    directory`. Followers of the changes are told `user.deactivated` and `user.erased`. Somebody whom a directory shows under a new id is
    somebody new. Backups are not touched: whoever restores one erases again.
    """
    from provisioning.cli.privacy import erase, lift

    if lifted:
        lift(user, organization, by=by)
    else:
        erase(user, organization, by=by, sure=sure)


@app.command("worker", epilog=examples("provisioning worker", "PROVISIONING_RECONCILE_INTERVAL=6h provisioning worker"))
def start_worker() -> None:
    """Tell hooks what becomes different, work on the runs that anybody asked for, ask for those that are due by
    PROVISIONING_RECONCILE_INTERVAL, and bring roles to the members of a group that another process has left undone, until SIGTERM.

    `serve` does the same beside answering requests; any number of both share the work.
    """
    from provisioning.cli.worker import work

    work()


@app.command(
    "check",
    epilog=examples(
        "provisioning check",
        "provisioning check --json | jq '.findings[] | select(.state != \"ok\")'",
        "provisioning check --live org_83543878963298576",
    ),
)
def check_setup(
    live_organization: Annotated[
        str | None,
        typer.Option(
            "--live", metavar="ORG", help="Instead, test on this organization what is taken for granted of Scalekit; changes nothing."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say of the configuration, the database, the webhooks received and refused, the runs, the hooks, the clock and Scalekit's API whether
    it is fine, and what to do where it is not. It only reads.

    The exit code is 1 if something is `wrong`; `warn` is for somebody to mend, and `note` to know.

    With --live: of each assumption about Scalekit's API what was seen, and what it changes, without anybody's name or address. The exit
    code is 1 if one does not hold.
    """
    if live_organization is not None:
        from provisioning.cli.live import live

        live(live_organization, as_json=as_json)
        return
    from provisioning.cli.check import check

    check(as_json=as_json)


Outcomes = Literal["processed", "stale", "ignored", "dead_lettered", "failed"]
OutcomeOption = Annotated[Outcomes | None, typer.Option(help="Only those of which this became.", show_default=False)]
OrganizationOption = Annotated[str | None, typer.Option(metavar="ORG", help="Only of this organization.", show_default=False)]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="Only of this type of event, such as user_deleted, or in full.")
]
AboutOption = Annotated[
    str | None, typer.Option(metavar="ID", help="Only about this directory user, group or directory.", show_default=False)
]
SinceOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only received since: 2026-11-22T09:30 (UTC), or 6h ago: 6h.")]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Only received before.", show_default=False)]
DismissedOption = Annotated[bool | None, typer.Option("--dismissed/--not-dismissed", help="Only those that are, or are not.")]


@inbox.command(
    "list",
    epilog=examples(
        "provisioning deliveries list --outcome failed --not-dismissed",
        "provisioning deliveries list --organization org_83543878963298576 --since 6h",
        "provisioning deliveries list --about diruser_70687244567806212",
        "provisioning deliveries list --json | jq '.data[].error'",
    ),
)
def list_inbox(
    outcome: OutcomeOption = None,
    organization: OrganizationOption = None,
    type_: TypeOption = None,
    about: AboutOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    dismissed: DismissedOption = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the HTTP API answers it.")] = False,
) -> None:
    """The deliveries received last, newest first, without their payloads; with options, those that are so in every respect."""
    from provisioning.cli.deliveries import list_deliveries, wanted

    asked = wanted(outcome=outcome, organization=organization, type_=type_, about=about, since=since, until=until, dismissed=dismissed)
    list_deliveries(asked, limit, as_json=as_json)


@inbox.command("show", epilog=examples("provisioning deliveries show msg_2YhkWJAZdsYQ"))
def show_one(webhook_id: Annotated[str, typer.Argument(help="Its webhook-id, as the list shows it.")]) -> None:
    """One delivery with its payload, which holds personal data, and what it changed."""
    from provisioning.cli.deliveries import show_delivery

    show_delivery(webhook_id)


@inbox.command(
    "replay",
    epilog=examples(
        "provisioning deliveries replay msg_2YhkWJAZdsYQ",
        "provisioning deliveries replay --outcome failed",
        "provisioning deliveries replay --organization org_83543878963298576 --since 3d",
    ),
)
def replay(
    webhook_ids: Annotated[
        list[str] | None, typer.Argument(metavar="WEBHOOK_ID…", help="In the order to handle them.", show_default=False)
    ] = None,
    outcome: OutcomeOption = None,
    organization: OrganizationOption = None,
    type_: TypeOption = None,
    about: AboutOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    dismissed: DismissedOption = None,
) -> None:
    """Handle stored deliveries again, as if they had just arrived: those named, or all that the options describe.

    Nothing is undone by it: an old event never overrides a newer one, and what is done already changes nothing. The exit code is 1 if one
    failed again.
    """
    from provisioning.cli.deliveries import replay_deliveries, replay_matching, wanted

    asked = wanted(outcome=outcome, organization=organization, type_=type_, about=about, since=since, until=until, dismissed=dismissed)
    if webhook_ids and asked.given():
        raise typer.BadParameter("Name deliveries, or describe them by options: not both.")
    if webhook_ids:
        replay_deliveries(webhook_ids)
    else:
        replay_matching(asked)


@inbox.command("dismiss", epilog=examples('provisioning deliveries dismiss msg_2YhkWJAZdsYQ --reason "A test of ours" --by Ada'))
def dismiss(
    webhook_ids: Annotated[list[str], typer.Argument(metavar="WEBHOOK_ID…", help="Failed or dead-lettered ones.")],
    reason: Annotated[str, typer.Option(help="Why nobody has to look at it any more.")],
    by: By = None,
) -> None:
    """Have deliveries that failed, or are dead-lettered, concern nobody any more: they raise no alarm, and are not tried again.

    They are kept, with the reason; `replay` takes it back.
    """
    from provisioning.cli.deliveries import dismiss_deliveries

    dismiss_deliveries(webhook_ids, reason=reason, by=by)


def _fail(line: str) -> None:
    typer.secho(f"provisioning: {line}", fg=typer.colors.RED, err=True)
    raise SystemExit(1)
