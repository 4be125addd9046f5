"""What operating it needs: retries, dismissals and questions about deliveries, refusals by the minute, logins, and who was erased."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_operations"
down_revision = "2026_11_22_changes"
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Time = sa.DateTime(timezone=True)

UNUSUAL = "outcome <> 'processed'"
RETRIED = "retry_at IS NOT NULL"
DEACTIVATED = "type = 'user.deactivated'"
PROPOSED = "state = 'needs_approval'"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("retry_at", Time))
    op.add_column("deliveries", sa.Column("dismissed_at", Time))
    op.add_column("deliveries", sa.Column("dismissed_by", sa.Text()))
    op.add_column("deliveries", sa.Column("dismissed_reason", sa.Text()))
    op.add_column("organizations", sa.Column("has_erased", sa.Boolean()))
    # What failed before is tried again by the service itself from now on.
    op.execute("UPDATE deliveries SET retry_at = CURRENT_TIMESTAMP WHERE outcome = 'failed' AND payload IS NOT NULL")
    op.create_index("ix_deliveries_subject_id_received_at_webhook_id", "deliveries", ["subject_id", "received_at", "webhook_id"])
    op.create_index(
        "ix_deliveries_unusual",
        "deliveries",
        ["outcome", "received_at", "webhook_id"],
        sqlite_where=sa.text(UNUSUAL),
        postgresql_where=sa.text(UNUSUAL),
    )
    for name, condition in (("payload", "payload IS NOT NULL"), ("dismissed", "dismissed_at IS NOT NULL")):
        where = sa.text(condition)
        op.create_index(f"ix_deliveries_{name}", "deliveries", ["received_at", "webhook_id"], sqlite_where=where, postgresql_where=where)
    op.create_index("ix_deliveries_retry_at", "deliveries", ["retry_at"], sqlite_where=sa.text(RETRIED), postgresql_where=sa.text(RETRIED))
    op.create_index(
        "ix_changes_deactivated", "changes", ["recorded_at"], sqlite_where=sa.text(DEACTIVATED), postgresql_where=sa.text(DEACTIVATED)
    )
    op.create_index(
        "ix_reconcile_runs_proposals", "reconcile_runs", ["finished_at"], sqlite_where=sa.text(PROPOSED), postgresql_where=sa.text(PROPOSED)
    )
    op.create_table(
        "erased",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("directory_user_id", Name, nullable=False),
        sa.Column("user_id", Name),
        sa.Column("erased_by", sa.Text(), nullable=False),
        sa.Column("erased_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "directory_user_id", name="pk_erased"),
    )
    op.create_table(
        "refusals",
        sa.Column("minute", Time, nullable=False),
        sa.Column("reason", Name, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("minute", "reason", name="pk_refusals"),
    )
    op.create_table(
        "operator_sessions",
        sa.Column("id", Name, nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        sa.Column("key_fingerprint", sa.Text(), nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_operator_sessions"),
    )


def downgrade() -> None:
    op.drop_table("operator_sessions")
    op.drop_table("refusals")
    op.drop_table("erased")
    op.drop_index("ix_reconcile_runs_proposals", table_name="reconcile_runs")
    op.drop_index("ix_changes_deactivated", table_name="changes")
    for name in ("retry_at", "dismissed", "payload"):
        op.drop_index(f"ix_deliveries_{name}", table_name="deliveries")
    op.drop_index("ix_deliveries_unusual", table_name="deliveries")
    op.drop_index("ix_deliveries_subject_id_received_at_webhook_id", table_name="deliveries")
    op.drop_column("organizations", "has_erased")
    for name in ("dismissed_reason", "dismissed_by", "dismissed_at", "retry_at"):
        op.drop_column("deliveries", name)
