"""UUID keys, timestamps, soft delete, partial and functional indexes: the tables of the other examples."""

from datetime import datetime
from decimal import Decimal
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Keyed:
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)  # no sequence to ask


class Timestamped:
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class SoftDeleted:
    deleted_at: Mapped[datetime | None]

    def soft_delete(self) -> None:
        self.deleted_at = func.now()


class User(Keyed, Timestamped, SoftDeleted, Base):
    __tablename__ = "users"
    email: Mapped[str]
    name: Mapped[str] = mapped_column(default="")
    balance: Mapped[Decimal] = mapped_column(default=0)
    posts: Mapped[list["Post"]] = relationship(back_populates="author", order_by="Post.title")


# One living user for an address, in any spelling; the address is free again once the user is deleted.
Index("uq_users_email_living", func.lower(User.email), unique=True, postgresql_where=User.deleted_at.is_(None))


class Post(Keyed, Timestamped, Base):
    __tablename__ = "posts"
    title: Mapped[str]
    views: Mapped[int] = mapped_column(default=0)
    author_id: Mapped[UUID] = mapped_column(ForeignKey(User.id), index=True)
    author: Mapped[User] = relationship(back_populates="posts")
    comments: Mapped[list["Comment"]] = relationship()


class Comment(Keyed, Timestamped, Base):
    __tablename__ = "comments"
    text: Mapped[str]
    post_id: Mapped[UUID] = mapped_column(ForeignKey(Post.id))


LIVING = User.deleted_at.is_(None)  # where every query about users begins
