"""Each worker says for how long it may be silent before others take it for dead."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("workers", sa.Column("lease", sa.Float(), nullable=False, server_default="60"))


def downgrade() -> None:
    op.drop_column("workers", "lease")
