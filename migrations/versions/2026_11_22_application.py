"""The way into the application: hooks out, the application's own ids of users and organizations, and views that stay as they are."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_application"
down_revision = "2026_11_22_operations"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Time = sa.DateTime(timezone=True)

EXTERNAL = "external_id IS NOT NULL"
FAILING = "failing_since IS NOT NULL"

# Without DISTINCT and, but for the users, without joins: SQLite works such a view out whole before it is joined to anything.
USERS = """
CREATE VIEW provisioning_v1_users AS
SELECT u.organization_id, o.external_id AS organization_external_id, u.id AS user_id, a.application_id, u.email, u.email_key, u.name,
       u.given_name, u.family_name, u.preferred_username, u.active, u.attributes, u.created_at, u.updated_at, u.deactivated_at
FROM users u
LEFT JOIN organizations o ON o.id = u.organization_id
LEFT JOIN application_ids a ON a.organization_id = u.organization_id AND a.user_id = u.id
"""
# Each of the first of those through whom the user is in the group. NOT >=: for a < SQLite would read the organization, not the index.
MEMBERSHIPS = """
CREATE VIEW provisioning_v1_memberships AS
SELECT m.organization_id, m.user_id, m.group_id,
       (SELECT g.name FROM groups g WHERE g.organization_id = m.organization_id AND g.id = m.group_id) AS group_name
FROM memberships m
WHERE m.since IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM memberships f
    WHERE f.organization_id = m.organization_id AND f.user_id = m.user_id AND f.group_id = m.group_id AND f.since IS NOT NULL
      AND NOT f.directory_user_id >= m.directory_user_id
)
"""
# Each of the first of its sources.
ROLES = """
CREATE VIEW provisioning_v1_roles AS
SELECT r.organization_id, r.user_id, r.role
FROM role_grants r
WHERE NOT EXISTS (
    SELECT 1 FROM role_grants f
    WHERE f.organization_id = r.organization_id AND f.user_id = r.user_id AND f.role = r.role AND f.source < r.source
)
"""


def upgrade() -> None:
    # Organizations before memberships, as who receives an event takes them: the other way round, the two would wait for each other.
    op.add_column("organizations", sa.Column("external_id", Name))
    op.add_column("organizations", sa.Column("external_id_at", Time))
    where = sa.text(EXTERNAL)
    op.create_index("ix_organizations_external_id", "organizations", ["external_id"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "application_ids",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("user_id", Name, nullable=False),
        sa.Column("application_id", Name, nullable=False),
        sa.Column("set_by", sa.Text(), nullable=False),
        sa.Column("set_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "user_id", name="pk_application_ids"),
        sa.ForeignKeyConstraint(
            ["organization_id", "user_id"], ["users.organization_id", "users.id"], name="fk_application_ids_users", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_application_ids_organization_id_application_id", "application_ids", ["organization_id", "application_id"], unique=True
    )
    op.create_table(
        "hooks",
        sa.Column("id", Name, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("organization_id", Name),
        sa.Column("types", sa.JSON(), nullable=False),
        sa.Column("secrets", sa.JSON(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("failing_since", Time),
        sa.Column("retry_at", Time),
        sa.Column("fresh_at", Time),
        sa.Column("error", sa.Text()),
        sa.Column("told_at", Time),
        sa.PrimaryKeyConstraint("id", name="pk_hooks"),
    )
    op.create_table(
        "hook_lanes",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("hook_id", Name, nullable=False),
        sa.Column("kind", Name, nullable=False),
        sa.Column("subject_id", Name, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due_at", Time, nullable=False),
        sa.Column("claim", Name),
        sa.Column("failing_since", Time),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("organization_id", "hook_id", "kind", "subject_id", name="pk_hook_lanes"),
    )
    op.create_index("ix_hook_lanes_hook_id_priority_due_at", "hook_lanes", ["hook_id", "priority", "due_at"])
    where = sa.text(FAILING)
    op.create_index("ix_hook_lanes_failing_since", "hook_lanes", ["failing_since"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "hook_dead_letters",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("hook_id", Name, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("mark", sa.Integer(), nullable=False),
        sa.Column("type", Name, nullable=False),
        sa.Column("kind", Name, nullable=False),
        sa.Column("subject_id", Name, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("died_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "hook_id", "position", name="pk_hook_dead_letters"),
    )
    op.create_index("ix_hook_dead_letters_hook_id_position", "hook_dead_letters", ["hook_id", "position"])
    op.create_index("ix_memberships_organization_id_user_id", "memberships", ["organization_id", "user_id"])
    for view in (USERS, MEMBERSHIPS, ROLES):
        op.execute(view)


def downgrade() -> None:
    for name in ("roles", "memberships", "users"):
        op.execute(f"DROP VIEW provisioning_v1_{name}")
    op.drop_index("ix_memberships_organization_id_user_id", table_name="memberships")
    for name in ("hook_dead_letters", "hook_lanes", "hooks", "application_ids"):
        op.drop_table(name)
    op.drop_index("ix_organizations_external_id", table_name="organizations")
    for name in ("external_id_at", "external_id"):
        op.drop_column("organizations", name)
