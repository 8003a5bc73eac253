"""What it costs to judge a statement: the first time, when PostgreSQL's parser reads it, and every time after that."""

import statistics
import time
from collections.abc import Callable

from benchmarks.tables import Table
from lagwise._decide.catalog import Catalog
from lagwise._decide.statement import effects_of

COLUMNS = ("characters", "cold µs", "warm ns")
STATEMENTS = {
    "SELECT 1": "SELECT 1",
    "session.get()": "SELECT item.id, item.name, item.price, item.owner_id \nFROM item \nWHERE item.id = $1::INTEGER",
    "a join, ordered": (
        "SELECT item.id, item.name, owner.id AS id_1, owner.name AS name_1 \n"
        "FROM item JOIN owner ON owner.id = item.owner_id \n"
        "WHERE item.price < $1::NUMERIC AND lower(owner.name) LIKE $2::VARCHAR ORDER BY item.name LIMIT $3::INTEGER"
    ),
    "IN of 10": f"SELECT name FROM item WHERE id IN ({', '.join(f'${n}::INTEGER' for n in range(1, 11))})",
    "IN of 1,000": f"SELECT name FROM item WHERE id IN ({', '.join(f'${n}::INTEGER' for n in range(1, 1001))})",
    "200 columns": f"SELECT {', '.join(f'item.column_{n} AS item_column_{n}' for n in range(200))} FROM item",
    "a literal of 8 kB": f"SELECT count(*) FROM item WHERE digest = '\\x{'de' * 4_000}'",
    "1 MB, not read": f"SELECT count(*) FROM item WHERE digest = '\\x{'de' * 500_000}'",
}


def _each(call: Callable[[], object], rounds: int) -> float:
    began = time.perf_counter()
    for _ in range(rounds):
        call()
    return (time.perf_counter() - began) / rounds


async def run(quick: bool) -> list[Table]:
    """One row for each kind of statement; medians."""
    rounds = 5 if quick else 50
    rows = {}
    for name, sql in STATEMENTS.items():
        cold = []
        for _ in range(rounds):
            empty = Catalog()
            cold.append(_each(lambda sql=sql, empty=empty: effects_of(sql, empty), 1))
        warm = [_each(lambda sql=sql, known=empty: effects_of(sql, known), 1_000) for _ in range(rounds)]
        figures = (float(len(sql)), statistics.median(cold) * 1e6, statistics.median(warm) * 1e9)
        rows[name] = dict(zip(COLUMNS, figures, strict=True))
    note = "Warm: looked up, as all but the first of its kind in a process are."
    return [Table("judging", "What it costs to judge a statement", COLUMNS, rows, (note,))]
