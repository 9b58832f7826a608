"""Answers that continue the text of an earlier attempt name it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("answers", sa.Column("continues", sa.BigInteger()))
    given = sa.text("continues IS NOT NULL")
    op.create_index("answers_continues", "answers", ["continues"], postgresql_where=given, sqlite_where=given)


def downgrade() -> None:
    op.drop_index("answers_continues", table_name="answers")
    op.drop_column("answers", "continues")
