"""The tables, the same on SQLite and PostgreSQL. Every key of a tenant's data starts with its organization.

`registers` holds a record's last-writer-wins map (merge.py) and is the truth; the columns beside it are projections to query by.
`memberships` and `role_grants` are projections too: they can be made again from the registers, `group_roles` and `local_roles` at any time.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    Table,
    Text,
    TypeDecorator,
    text,
)

# Byte order on both databases, so that cursors and lock order agree between them and with Python.
Name = Text().with_variant(Text(collation="C"), "postgresql")


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC: `timestamptz` on PostgreSQL; SQLite has no zones, so it is stored and read there as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return `value` as this database stores it."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return `value` aware and in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _times() -> tuple[Column[datetime], Column[datetime]]:
    return Column("created_at", UtcTime, nullable=False), Column("updated_at", UtcTime, nullable=False)


def _only(condition: str) -> dict[str, Any]:
    """An index over these rows alone."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


_ROOM = {"fillfactor": 70}  # for new versions beside the old: an update that changes no indexed column writes no index then

organizations = Table(
    "organizations",
    metadata,
    Column("id", Name, primary_key=True),
    # The mark: nanoseconds since 1970; user and group events older than this are stale.
    Column("complete_as_of", BigInteger),
    Column("created_at", UtcTime, nullable=False),
    # By directory: the role names that its mapping gave at the last run. Only these are taken away when a listing does not show them.
    Column("mapped_roles", JSON),
    # Whether somebody was erased: only then a batch looks who. Null: nobody.
    Column("has_erased", Boolean),
    # What the application calls it, and when Scalekit was asked as it first said so, or that it has no such id any more.
    Column("external_id", Name),
    Column("external_id_at", UtcTime),
    Index("ix_organizations_external_id", "external_id", **_only("external_id IS NOT NULL")),
)

# People who were erased, by the ids of what was behind them: nothing that is said of these comes in again.
erased = Table(
    "erased",
    metadata,
    Column("organization_id", Name),
    Column("directory_user_id", Name),
    Column("user_id", Name),  # null: it was a directory user without an account
    Column("erased_by", Text, nullable=False),
    Column("erased_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("organization_id", "directory_user_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("webhook_id", Name, primary_key=True),
    Column("event_id", Name),
    Column("type", Name),
    Column("organization_id", Name),
    Column("subject_id", Name),
    Column("occurred_at", BigInteger),  # nanoseconds since 1970: Scalekit states up to nine fractional digits
    Column("received_at", UtcTime, nullable=False),
    Column("processed_at", UtcTime),
    Column("outcome", Name, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text),
    Column("payload", LargeBinary),
    Column("retry_at", UtcTime),  # when the service itself tries a failed one again
    Column("dismissed_at", UtcTime),
    Column("dismissed_by", Text),
    Column("dismissed_reason", Text),
    Index(None, "received_at", "webhook_id"),
    Index(None, "organization_id", "received_at", "webhook_id"),
    Index(None, "organization_id", "processed_at"),
    Index(None, "subject_id", "received_at", "webhook_id"),
    Index("ix_deliveries_unusual", "outcome", "received_at", "webhook_id", **_only("outcome <> 'processed'")),
    Index("ix_deliveries_retry_at", "retry_at", **_only("retry_at IS NOT NULL")),
    Index("ix_deliveries_payload", "received_at", "webhook_id", **_only("payload IS NOT NULL")),
    Index("ix_deliveries_dismissed", "received_at", "webhook_id", **_only("dismissed_at IS NOT NULL")),
)

# What was refused as not provably Scalekit's: how often in each minute, and nothing of what it was.
refusals = Table(
    "refusals",
    metadata,
    Column("minute", UtcTime),
    Column("reason", Name),
    Column("count", BigInteger, nullable=False),
    PrimaryKeyConstraint("minute", "reason"),
)

# Who is logged in to the operations page; void when its API key goes, or is another one.
operator_sessions = Table(
    "operator_sessions",
    metadata,
    Column("id", Name, primary_key=True),  # the SHA-256 of what the browser keeps
    Column("key_name", Text, nullable=False),
    Column("key_fingerprint", Text, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)

directories = Table(
    "directories",
    metadata,
    Column("organization_id", Name),
    Column("id", Name),
    Column("provider", Text),
    Column("type", Text),
    Column("enabled", Boolean, nullable=False),
    Column("registers", JSON, nullable=False),
    *_times(),
    PrimaryKeyConstraint("organization_id", "id"),
)

groups = Table(
    "groups",
    metadata,
    Column("organization_id", Name),
    Column("id", Name),
    Column("directory_id", Name),
    Column("external_id", Name),
    Column("name", Text),
    Column("deleted", Boolean, nullable=False),
    Column("registers", JSON, nullable=False),
    *_times(),
    PrimaryKeyConstraint("organization_id", "id"),
)

users = Table(
    "users",
    metadata,
    Column("organization_id", Name),
    Column("id", Name),
    Column("email", Text),
    Column("email_key", Name),  # accounts.email_key: what e-mails are compared by
    Column("name", Text),
    Column("given_name", Text),
    Column("family_name", Text),
    Column("preferred_username", Text),
    Column("active", Boolean, nullable=False),
    Column("attributes", JSON, nullable=False),
    *_times(),
    Column("deactivated_at", UtcTime),
    Column("activated_at", UtcTime),  # null also of one who is active since before this was kept
    PrimaryKeyConstraint("organization_id", "id"),
    Index(None, "organization_id", "email_key", "id"),
    Index(None, "organization_id", "active", "id"),
    postgresql_with=_ROOM,
)

directory_users = Table(
    "directory_users",
    metadata,
    Column("organization_id", Name),
    Column("id", Name),
    Column("user_id", Name),  # decided when first seen, never changed; a tombstone of somebody never seen has none
    Column("directory_id", Name),  # known once a reconcile saw it there
    Column("external_id", Name),  # Scalekit's dp_id
    Column("email", Text),
    Column("active", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("registers", JSON, nullable=False),
    *_times(),
    PrimaryKeyConstraint("organization_id", "id"),
    ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"]),
    Index(None, "organization_id", "user_id"),
    Index(None, "organization_id", "external_id"),
    Index(None, "organization_id", "directory_id"),
    postgresql_with=_ROOM,
)

memberships = Table(
    "memberships",
    metadata,
    Column("organization_id", Name),
    Column("directory_user_id", Name),
    Column("group_id", Name),
    # The directory user's, which never changes: a group's members are read in order from one index.
    Column("user_id", Name, nullable=False),
    # Since when the user is in the group by it; null while it is not: the directory user or the group does not count.
    Column("since", UtcTime),
    PrimaryKeyConstraint("organization_id", "directory_user_id", "group_id"),
    ForeignKeyConstraint(["organization_id", "directory_user_id"], ["directory_users.organization_id", "directory_users.id"]),
    ForeignKeyConstraint(["organization_id", "group_id"], ["groups.organization_id", "groups.id"]),
    Index(None, "organization_id", "group_id", "user_id"),
    Index(None, "organization_id", "user_id"),
)

role_grants = Table(
    "role_grants",
    metadata,
    Column("organization_id", Name),
    Column("user_id", Name),
    Column("role", Name),
    Column("source", Name),  # the directory user that it comes from; or `group:` and the id of the group that is mapped to it; or `local`
    Column("since", UtcTime),  # null: since before this was kept
    PrimaryKeyConstraint("organization_id", "user_id", "role", "source"),
    ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"]),
    Index(None, "organization_id", "role", "user_id"),
)

group_roles = Table(
    "group_roles",
    metadata,
    Column("organization_id", Name),
    Column("group_id", Name),
    Column("role", Name),
    Column("mapped_by", Text, nullable=False),
    Column("mapped_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("organization_id", "group_id", "role"),
    ForeignKeyConstraint(["organization_id", "group_id"], ["groups.organization_id", "groups.id"]),
)

# Groups whose roles have changed, and not yet been brought to every member; whoever does that holds it until `due_at`.
unapplied_roles = Table(
    "unapplied_roles",
    metadata,
    Column("organization_id", Name),
    Column("group_id", Name),
    Column("changed_by", Text, nullable=False),
    Column("change", Name, nullable=False),  # another change meanwhile is another text
    Column("due_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("organization_id", "group_id"),
)

local_roles = Table(
    "local_roles",
    metadata,
    Column("organization_id", Name),
    Column("user_id", Name),
    Column("role", Name),
    Column("granted_by", Text, nullable=False),
    Column("granted_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("organization_id", "user_id", "role"),
    ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"]),
)

# What the application calls its users, each under one id of its own.
application_ids = Table(
    "application_ids",
    metadata,
    Column("organization_id", Name),
    Column("user_id", Name),
    Column("application_id", Name, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("set_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("organization_id", "user_id"),
    # A release that does not know of it erases a user with it.
    ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"], ondelete="CASCADE"),
    Index(None, "organization_id", "application_id", unique=True),
)

BLANK = "erased"  # the type of a change of which only its place in the log is left

changes = Table(
    "changes",
    metadata,
    Column("organization_id", Name),
    Column("position", BigInteger),  # rises along everybody's own history; taken under the locks on what changed
    Column("type", Name, nullable=False),
    Column("user_id", Name),
    Column("group_id", Name),
    Column("directory_id", Name),
    Column("role", Name),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Column("cause", Name, nullable=False),  # delivery, run or operator
    Column("cause_id", Text, nullable=False),  # its webhook id, its id, or a name
    Column("occurred_at", BigInteger),  # there, in nanoseconds since 1970; of what an operator did, null
    Column("recorded_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("organization_id", "position"),
    Index(None, "position"),
    Index("ix_changes_user", "organization_id", "user_id", "position", **_only("user_id IS NOT NULL")),
    Index("ix_changes_group", "organization_id", "group_id", "position", **_only("group_id IS NOT NULL")),
    Index("ix_changes_deactivated", "recorded_at", **_only("type = 'user.deactivated'")),
)

# The first change has the second position: the first stands for what was here before there was a log.
changes_position = Sequence("changes_position", start=2, metadata=metadata)

# One row. `last`: the last position taken on SQLite, which has no sequences; `forgotten`: changes up to this one are not kept any more.
change_log = Table(
    "change_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("forgotten", BigInteger, nullable=False),
)

# Whom the application has told to be told of changes.
hooks = Table(
    "hooks",
    metadata,
    Column("id", Name, primary_key=True),
    Column("url", Text, nullable=False),
    Column("organization_id", Name),  # of this one only; null: of all
    Column("types", JSON, nullable=False),  # of changes; none: of all
    Column("secrets", JSON, nullable=False),  # the newest first, each with until when it signs
    Column("position", BigInteger, nullable=False),  # the log is in its lanes up to there
    Column("created_by", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # While it fails one message at a time is sent: from `retry_at` on any, from `fresh_at` on one that was never tried.
    Column("failing_since", UtcTime),
    Column("retry_at", UtcTime),
    Column("fresh_at", UtcTime),
    Column("error", Text),
    Column("told_at", UtcTime),
)

# What one hook has yet to be told about one user (or group, or directory): the log behind `position`, up to `last`.
hook_lanes = Table(
    "hook_lanes",
    metadata,
    Column("organization_id", Name),
    Column("hook_id", Name),
    Column("kind", Name),  # user, group or directory
    Column("subject_id", Name),
    Column("position", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("priority", Integer, nullable=False),  # 0: somebody lost access
    Column("due_at", UtcTime, nullable=False),  # whoever claims it holds it until then
    Column("claim", Name),
    Column("failing_since", UtcTime),
    Column("attempts", Integer, nullable=False),  # at the first message behind `position`
    Column("error", Text),
    PrimaryKeyConstraint("organization_id", "hook_id", "kind", "subject_id"),
    Index(None, "hook_id", "priority", "due_at"),
    Index("ix_hook_lanes_failing_since", "failing_since", **_only("failing_since IS NOT NULL")),
)

# What could not be told to a hook for a day.
hook_dead_letters = Table(
    "hook_dead_letters",
    metadata,
    Column("organization_id", Name),
    Column("hook_id", Name),
    Column("position", BigInteger),
    Column("mark", Integer, nullable=False),
    Column("type", Name, nullable=False),
    Column("kind", Name, nullable=False),
    Column("subject_id", Name, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("died_at", UtcTime, nullable=False),
    PrimaryKeyConstraint("organization_id", "hook_id", "position"),
    Index(None, "hook_id", "position"),
)

reconcile_runs = Table(
    "reconcile_runs",
    metadata,
    Column("organization_id", Name),
    Column("id", Name),
    Column("state", Name, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("requested_at", UtcTime, nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("as_of", BigInteger),  # Scalekit's time before its listing's first page, in nanoseconds since 1970; rises from run to run
    # Whose it is, and until when unless renewed; a run whose lease has lapsed is anybody's.
    Column("claimed_by", Name),
    Column("leased_until", UtcTime),
    Column("cancel_wanted_by", Text),
    Column("approved_by", Text),
    Column("listed_users", Integer, nullable=False),
    Column("listed_groups", Integer, nullable=False),
    Column("expected_users", Integer),
    Column("changes", JSON, nullable=False),
    Column("removed", JSON, nullable=False),  # without approval, from absence: what the guard counts for a day
    Column("drift", JSON, nullable=False),  # the first findings, to be shown
    Column("drifted", Integer, nullable=False),  # how many there were
    Column("held_back", JSON, nullable=False),  # why, in words
    Column("proposal", JSON),
    Column("saw_active", Boolean, nullable=False),
    Column("saw_totals", Boolean, nullable=False),
    Column("error", Text),
    PrimaryKeyConstraint("organization_id", "id"),
    # One waits and one runs, at most, of an organization: whoever asks for another joins it.
    Index("ix_reconcile_runs_queued", "organization_id", "dry_run", unique=True, **_only("state = 'queued'")),
    Index("ix_reconcile_runs_running", "organization_id", unique=True, **_only("state = 'running'")),
    Index("ix_reconcile_runs_unfinished", "due_at", **_only("state IN ('queued', 'running')")),
    Index("ix_reconcile_runs_proposals", "finished_at", **_only("state = 'needs_approval'")),
)
