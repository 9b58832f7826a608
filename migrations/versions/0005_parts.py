"""Parts that a merge waits for, what was estimated before a job ran, and files that a vendor keeps for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("items", sa.Column("part_of", sa.BigInteger()))
    op.create_index(
        "items_part_of",
        "items",
        ["part_of"],
        postgresql_where=sa.text("part_of IS NOT NULL"),
        sqlite_where=sa.text("part_of IS NOT NULL"),
    )
    op.add_column("jobs", sa.Column("estimate", sa.JSON()))
    op.add_column("attempts", sa.Column("note", sa.Text()))
    op.create_table(
        "uploads",
        sa.Column("id", ID, primary_key=True),
        sa.Column("profile_id", ID, sa.ForeignKey("profiles.id"), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("profile_id", "account", "digest", name="uploads_profile_id_account_digest_key"),
    )


def downgrade() -> None:
    op.drop_table("uploads")
    op.drop_column("attempts", "note")
    op.drop_column("jobs", "estimate")
    op.drop_index("items_part_of", table_name="items")
    op.drop_column("items", "part_of")
