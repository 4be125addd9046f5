"""The change log, roles given here, and since when somebody is in a group or has a role."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_changes"
down_revision = "2026_11_22_reconcile_runs"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Time = sa.DateTime(timezone=True)

# Who is in which group now, as the release before this one worked it out at each question.
IN_GROUP = """UPDATE memberships SET since = CURRENT_TIMESTAMP WHERE EXISTS (
    SELECT 1 FROM directory_users AS du
    JOIN users AS u ON u.organization_id = du.organization_id AND u.id = du.user_id
    JOIN groups AS g ON g.organization_id = memberships.organization_id AND g.id = memberships.group_id
    LEFT JOIN directories AS d ON d.organization_id = du.organization_id AND d.id = du.directory_id
    WHERE du.organization_id = memberships.organization_id AND du.id = memberships.directory_user_id
    AND u.active AND du.active AND NOT du.deleted AND NOT g.deleted
    AND (coalesce(d.enabled, true) OR NOT EXISTS (
        SELECT 1 FROM directory_users AS other
        LEFT JOIN directories AS home ON home.organization_id = other.organization_id AND home.id = other.directory_id
        WHERE other.organization_id = du.organization_id AND other.user_id = du.user_id AND coalesce(home.enabled, true)
    ))
)"""


def upgrade() -> None:
    op.create_table(
        "group_roles",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("group_id", Name, nullable=False),
        sa.Column("role", Name, nullable=False),
        sa.Column("mapped_by", sa.Text(), nullable=False),
        sa.Column("mapped_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["organization_id", "group_id"], ["groups.organization_id", "groups.id"], name="fk_group_roles_groups"),
        sa.PrimaryKeyConstraint("organization_id", "group_id", "role", name="pk_group_roles"),
    )
    op.create_table(
        "unapplied_roles",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("group_id", Name, nullable=False),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column("change", Name, nullable=False),
        sa.Column("due_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "group_id", name="pk_unapplied_roles"),
    )
    op.create_table(
        "local_roles",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("user_id", Name, nullable=False),
        sa.Column("role", Name, nullable=False),
        sa.Column("granted_by", sa.Text(), nullable=False),
        sa.Column("granted_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"], name="fk_local_roles_users"),
        sa.PrimaryKeyConstraint("organization_id", "user_id", "role", name="pk_local_roles"),
    )
    op.create_table(
        "changes",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("type", Name, nullable=False),
        sa.Column("user_id", Name),
        sa.Column("group_id", Name),
        sa.Column("directory_id", Name),
        sa.Column("role", Name),
        sa.Column("before", sa.JSON()),
        sa.Column("after", sa.JSON()),
        sa.Column("cause", Name, nullable=False),
        sa.Column("cause_id", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger()),
        sa.Column("recorded_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "position", name="pk_changes"),
    )
    op.create_index("ix_changes_position", "changes", ["position"])
    for name in ("user", "group"):
        where = sa.text(f"{name}_id IS NOT NULL")
        columns = ["organization_id", f"{name}_id", "position"]
        op.create_index(f"ix_changes_{name}", "changes", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "change_log",
        sa.Column("id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("forgotten", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_change_log"),
    )
    # What is here already was never logged: a reader who begins with nothing is told so, as if it had been forgotten.
    op.execute("INSERT INTO change_log (id, last, forgotten) SELECT 1, 1, count(*) FROM (SELECT 1 FROM organizations LIMIT 1) AS known")
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE SEQUENCE changes_position START WITH 2")
    # Last: whoever reads users waits for these alone.
    op.add_column("users", sa.Column("activated_at", Time))
    op.add_column("role_grants", sa.Column("since", Time))
    op.add_column("memberships", sa.Column("since", Time))
    op.execute(IN_GROUP)


def downgrade() -> None:
    op.execute("DELETE FROM role_grants WHERE source = 'local' OR source LIKE 'group:%'")  # which nobody could take away any more
    for table, column in (("memberships", "since"), ("role_grants", "since"), ("users", "activated_at")):
        op.drop_column(table, column)
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP SEQUENCE changes_position")
    for table in ("change_log", "changes", "local_roles", "unapplied_roles", "group_roles"):
        op.drop_table(table)
