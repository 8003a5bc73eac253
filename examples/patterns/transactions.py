"""Explicit transactions: transfers under a lock, a savepoint for each item of a batch, one snapshot to read."""

from decimal import Decimal
from uuid import UUID

from fastapi import FastAPI, HTTPException
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from examples.patterns.database import SECRET, db
from examples.patterns.models import User
from lagwise.fastapi import CausalityMiddleware, lifespan

api = FastAPI(lifespan=lifespan(db))
app = CausalityMiddleware(api, secret=SECRET, route_header=True)


@api.post("/accounts/batch")
async def open_accounts(emails: list[str], balance: Decimal) -> dict[str, UUID]:
    opened = {}
    async with db.write() as session, session.begin():
        for email in emails:
            try:
                async with session.begin_nested():
                    session.add(user := User(email=email, balance=balance))
            except IntegrityError:  # this one is rolled back to its savepoint, the others stay
                continue
            opened[email] = user.id
    return opened


@api.post("/transfers")
async def transfer(source: UUID, target: UUID, amount: Decimal) -> Decimal:
    async with db.write() as session, session.begin():
        # Locked in the order of their ids, not in that of the payment: two transfers never wait for each other.
        locked = select(User).where(User.id.in_([source, target])).order_by(User.id).with_for_update()
        accounts = {user.id: user for user in await session.scalars(locked)}
        if accounts.keys() != {source, target}:
            raise HTTPException(404)
        async with session.begin_nested():
            accounts[target].balance += amount
            accounts[source].balance -= amount
        if accounts[source].balance < 0:
            raise HTTPException(409, "not enough money")  # rolls back, the released savepoint as well
    return accounts[source].balance


@api.post("/balances")
async def balances(ids: list[UUID]) -> dict[str, Decimal]:
    chosen = User.id.in_(ids)
    async with db.read(snapshot=True) as session:  # both statements see one state, whatever is transferred meanwhile
        found = (await session.execute(select(User.id, User.balance).where(chosen))).all()
        total = await session.scalar(select(func.sum(User.balance)).where(chosen))
    return {str(key): balance for key, balance in found} | {"total": total or Decimal(0)}
