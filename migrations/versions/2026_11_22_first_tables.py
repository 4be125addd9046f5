"""The inbox, the directories' records with their registers, and what the application reads."""

import sqlalchemy as sa
from alembic import op

revision = "2026_11_22_first_tables"
down_revision = None
branch_labels = None
depends_on = None

Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("webhook_id", Name, nullable=False),
        sa.Column("event_id", Name),
        sa.Column("type", Name),
        sa.Column("organization_id", Name),
        sa.Column("subject_id", Name),
        sa.Column("occurred_at", sa.BigInteger()),
        sa.Column("received_at", Time, nullable=False),
        sa.Column("processed_at", Time),
        sa.Column("outcome", Name, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("payload", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("webhook_id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_organization_id_received_at_webhook_id", "deliveries", ["organization_id", "received_at", "webhook_id"])
    op.create_index("ix_deliveries_received_at_webhook_id", "deliveries", ["received_at", "webhook_id"])
    op.create_table(
        "directories",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("id", Name, nullable=False),
        sa.Column("provider", sa.Text()),
        sa.Column("type", sa.Text()),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("registers", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_directories"),
    )
    op.create_table(
        "groups",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("id", Name, nullable=False),
        sa.Column("directory_id", Name),
        sa.Column("external_id", Name),
        sa.Column("name", sa.Text()),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("registers", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_groups"),
    )
    op.create_table(
        "organizations",
        sa.Column("id", Name, nullable=False),
        sa.Column("complete_as_of", sa.BigInteger()),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_organizations"),
    )
    op.create_table(
        "users",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("id", Name, nullable=False),
        sa.Column("email", sa.Text()),
        sa.Column("email_key", Name),
        sa.Column("name", sa.Text()),
        sa.Column("given_name", sa.Text()),
        sa.Column("family_name", sa.Text()),
        sa.Column("preferred_username", sa.Text()),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("deactivated_at", Time),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_users"),
    )
    op.create_index("ix_users_organization_id_active_id", "users", ["organization_id", "active", "id"])
    op.create_index("ix_users_organization_id_email_key_id", "users", ["organization_id", "email_key", "id"])
    op.create_table(
        "directory_users",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("id", Name, nullable=False),
        sa.Column("user_id", Name),
        sa.Column("directory_id", Name),
        sa.Column("external_id", Name),
        sa.Column("email", sa.Text()),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("registers", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"], name="fk_directory_users_users"),
        sa.PrimaryKeyConstraint("organization_id", "id", name="pk_directory_users"),
    )
    op.create_index("ix_directory_users_organization_id_directory_id", "directory_users", ["organization_id", "directory_id"])
    op.create_index("ix_directory_users_organization_id_external_id", "directory_users", ["organization_id", "external_id"])
    op.create_index("ix_directory_users_organization_id_user_id", "directory_users", ["organization_id", "user_id"])
    op.create_table(
        "role_grants",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("user_id", Name, nullable=False),
        sa.Column("role", Name, nullable=False),
        sa.Column("source", Name, nullable=False),
        sa.ForeignKeyConstraint(["organization_id", "user_id"], ["users.organization_id", "users.id"], name="fk_role_grants_users"),
        sa.PrimaryKeyConstraint("organization_id", "user_id", "role", "source", name="pk_role_grants"),
    )
    op.create_index("ix_role_grants_organization_id_role_user_id", "role_grants", ["organization_id", "role", "user_id"])
    op.create_table(
        "memberships",
        sa.Column("organization_id", Name, nullable=False),
        sa.Column("directory_user_id", Name, nullable=False),
        sa.Column("group_id", Name, nullable=False),
        sa.Column("user_id", Name, nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id", "directory_user_id"],
            ["directory_users.organization_id", "directory_users.id"],
            name="fk_memberships_directory_users",
        ),
        sa.ForeignKeyConstraint(["organization_id", "group_id"], ["groups.organization_id", "groups.id"], name="fk_memberships_groups"),
        sa.PrimaryKeyConstraint("organization_id", "directory_user_id", "group_id", name="pk_memberships"),
    )
    op.create_index("ix_memberships_organization_id_group_id_user_id", "memberships", ["organization_id", "group_id", "user_id"])


def downgrade() -> None:
    op.drop_index("ix_memberships_organization_id_group_id_user_id", table_name="memberships")
    op.drop_table("memberships")
    op.drop_index("ix_role_grants_organization_id_role_user_id", table_name="role_grants")
    op.drop_table("role_grants")
    op.drop_index("ix_directory_users_organization_id_user_id", table_name="directory_users")
    op.drop_index("ix_directory_users_organization_id_external_id", table_name="directory_users")
    op.drop_index("ix_directory_users_organization_id_directory_id", table_name="directory_users")
    op.drop_table("directory_users")
    op.drop_index("ix_users_organization_id_email_key_id", table_name="users")
    op.drop_index("ix_users_organization_id_active_id", table_name="users")
    op.drop_table("users")
    op.drop_table("organizations")
    op.drop_table("groups")
    op.drop_table("directories")
    op.drop_index("ix_deliveries_organization_id_received_at_webhook_id", table_name="deliveries")
    op.drop_index("ix_deliveries_received_at_webhook_id", table_name="deliveries")
    op.drop_table("deliveries")
