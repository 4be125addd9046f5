"""Room for new versions of users and directory users beside the old ones, so that an update which changes no indexed column writes no
index (PostgreSQL's heap-only tuples). Pages that are full stay so until their rows are written anew.
"""

from alembic import op

revision = "2026_11_23_room_for_updates"
down_revision = "2026_11_22_application"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE users SET (fillfactor = 70)")
        op.execute("ALTER TABLE directory_users SET (fillfactor = 70)")


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE users RESET (fillfactor)")
        op.execute("ALTER TABLE directory_users RESET (fillfactor)")
