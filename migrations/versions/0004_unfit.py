"""Done items whose answer doesn't fit the form that was asked for are counted by an index of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_index(
        "items_unfit",
        "items",
        ["job_id"],
        postgresql_where=sa.text("state = 'done' AND error_kind IS NOT NULL"),
        sqlite_where=sa.text("state = 'done' AND error_kind IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("items_unfit", table_name="items")
