"""Costs that were settled by hand are marked."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("usage", sa.Column("settled", sa.Text()))


def downgrade() -> None:
    op.drop_column("usage", "settled")
