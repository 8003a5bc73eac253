"""A Router used where it was not opened says so at once, instead of a driver's riddle later."""

import asyncio
import multiprocessing
import warnings
from multiprocessing.connection import Connection

import pytest

from lagwise import NotOpen, Router


async def _use(db: Router) -> str:
    said = []
    for maker in (db.read, db.write):
        with pytest.raises(NotOpen) as refused:
            async with maker():
                pass
        said.append(str(refused.value))
    with pytest.raises(NotOpen):
        async with db.read.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
    with pytest.raises(NotOpen):
        async with db.read.asyncpg() as connection:
            await connection.fetchval("SELECT 1")
    assert len(set(said)) == 1
    return said[0]


def _in_a_child(db: Router, out: Connection) -> None:
    out.send(asyncio.run(_use(db)))


async def test_another_thread(db: Router) -> None:
    """A thread with a loop of its own: sessions and connections raise NotOpen, which names the loop and the remedy."""
    said = await asyncio.to_thread(lambda: asyncio.run(_use(db)))
    assert "another event loop, or another thread" in said
    assert "open a Router in each process" in said


async def test_a_forked_child(db: Router) -> None:
    """A child that was forked while the Router was open: it says so; the parent's works on."""
    near, far = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = multiprocessing.get_context("fork").Process(target=_in_a_child, args=(db, far))
        child.start()
    try:
        assert await asyncio.to_thread(near.poll, 30)
        assert "before this process was forked" in near.recv()
    finally:
        child.kill()
        child.join()
    async with db.read():
        pass
