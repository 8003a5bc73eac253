"""Notes, and an index that is built outside of a transaction.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table("note", sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.String, nullable=False))
    with op.get_context().autocommit_block():
        op.create_index("note_text", "note", ["text"], postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_table("note")
