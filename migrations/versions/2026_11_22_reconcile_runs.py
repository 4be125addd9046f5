"""Reconcile runs, and what an organization's directories gave roles for at the last one."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_reconcile_runs"
down_revision = "2026_11_22_first_tables"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_index("ix_deliveries_organization_id_processed_at", "deliveries", ["organization_id", "processed_at"])
    op.create_table(
        "reconcile_runs",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("id", Name, nullable=False),
        sa.Column("state", Name, nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("requested_at", Time, nullable=False),
        sa.Column("due_at", Time, nullable=False),
        sa.Column("started_at", Time),
        sa.Column("finished_at", Time),
        sa.Column("as_of", sa.BigInteger()),
        sa.Column("claimed_by", Name),
        sa.Column("leased_until", Time),
        sa.Column("cancel_wanted_by", sa.Text()),
        sa.Column("approved_by", sa.Text()),
        sa.Column("listed_users", sa.Integer(), nullable=False),
        sa.Column("listed_groups", sa.Integer(), nullable=False),
        sa.Column("expected_users", sa.Integer()),
        sa.Column("changes", sa.JSON(), nullable=False),
        sa.Column("removed", sa.JSON(), nullable=False),
        sa.Column("drift", sa.JSON(), nullable=False),
        sa.Column("drifted", sa.Integer(), nullable=False),
        sa.Column("held_back", sa.JSON(), nullable=False),
        sa.Column("proposal", sa.JSON()),
        sa.Column("saw_active", sa.Boolean(), nullable=False),
        sa.Column("saw_totals", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_reconcile_runs"),
    )
    for name, columns, condition, unique in (
        ("queued", ["organization_id", "dry_run"], "state = 'queued'", True),
        ("running", ["organization_id"], "state = 'running'", True),
        ("unfinished", ["due_at"], "state IN ('queued', 'running')", False),
    ):
        where = sa.text(condition)
        op.create_index(f"ix_reconcile_runs_{name}", "reconcile_runs", columns, unique=unique, sqlite_where=where, postgresql_where=where)
    # Last: whoever reads organizations waits for no index.
    op.add_column("organizations", sa.Column("mapped_roles", sa.JSON()))


def downgrade() -> None:
    op.drop_table("reconcile_runs")
    op.drop_index("ix_deliveries_organization_id_processed_at", "deliveries")
    with op.batch_alter_table("organizations") as organizations:
        organizations.drop_column("mapped_roles")
