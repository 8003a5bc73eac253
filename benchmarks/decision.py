"""What a decision costs as replicas grow in number: route() and View.of(), in time and in instructions executed."""

import itertools
import random
import sys
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from benchmarks.tables import Table
from lagwise import Policy
from lagwise._decide.identity import Identity
from lagwise._decide.lag_history import LagHistory
from lagwise._decide.lsn import LSN
from lagwise._decide.route import Demand, route
from lagwise._decide.view import Node, Reading, Role, View

SIZES = (1, 2, 4, 16, 64, 256)
NOW, STEP, SAMPLES = 1000.0, 4096, 200


def world(replicas: int) -> View:
    """A primary with a history, and replicas at positions of their own, the first the most advanced."""
    head = LSN((SAMPLES + replicas) * STEP)
    readings = [
        Reading(role=Role.REPLICA, system=7, timeline=1, lsn=LSN(head - n * STEP), at=NOW) for n in range(replicas)
    ]
    nodes = [Node(name=f"replica-{n}", reading=reading) for n, reading in enumerate(readings, 1)]
    random.Random(replicas).shuffle(nodes)
    past = LagHistory(
        tuple(LSN(n * STEP) for n in range(1, SAMPLES + replicas)),
        tuple(NOW - (SAMPLES + replicas - n) * 0.01 for n in range(1, SAMPLES + replicas)),
    )
    primary = Node(name="primary", reading=Reading(role=Role.PRIMARY, system=7, timeline=1, lsn=head, at=NOW))
    known = Identity(system=7, timeline=1, sure=True)
    return View.of([primary, *nodes], View(nodes=(), history=past, identity=known))


def floored(view: View) -> Demand:
    """A read with a floor that three quarters of the replicas have reached: with 2, both."""
    reached = view.rotation[(len(view.rotation) * 3 + 3) // 4 - 1].reading
    assert reached is not None
    return Demand(timeline=1, floor=reached.lsn)


def decisions(quick: bool) -> Table:
    """One line per number of replicas."""
    table = Table(
        "decision",
        "A decision with a floor, and the picture it is made from",
        ("route() us", "instructions", "View.of us"),
        notes=(
            "route(): for each session. View.of(): for each reading that the monitor gets.",
            "Times are the best of several rounds. Instructions are the interpreter's, for one decision.",
        ),
        drawn=("route() us",),
    )
    rounds = 3 if quick else 15
    for replicas in SIZES:
        view = world(replicas)
        decide = partial(route, view, Policy(), floored(view), NOW)
        # Two draws that find different replicas, where there are two.
        table.rows[f"{replicas} replica{'s' * (replicas > 1)}"] = {
            "route() us": best(decide, 2000, rounds),
            "instructions": instructions(partial(decide, draw=itertools.cycle((0.1, 0.9)).__next__)),
            "View.of us": best(partial(View.of, view.nodes, view), max(10, 1000 // replicas), rounds),
        }
    return table


def best(call: Callable[[], object], times: int, rounds: int) -> float:
    """Microseconds of one call in the best round: what else the machine does can only add."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(times):
            call()
        found.append(time.perf_counter() - began)
    return min(found) / times * 1e6


def instructions(call: Callable[[], object]) -> int:
    """Bytecode instructions that the interpreter executes below this call; the same on any machine."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
