"""The whole of it, short: clients over HTTP, two worker processes, faults by seed; and the schedule as a value."""

from typing import get_args

import pytest

from lagwise.testing.schedule import Fault, Schedule, Step
from tests.kit.numbers import enough

from .campaign import run


@pytest.mark.long
@pytest.mark.parametrize("seed", enough([6], [6, 1]))
async def test_no_guarantee_is_broken(seed: int) -> None:
    """Through twelve seconds of faults the clients see what they were promised, or a named error.

    Sixty seconds, ten seeds, and a seed that failed again: `python -m tests.history --help`.
    """
    result = await run(seed, 12)
    assert not result.violations, f"{result}\n{result.schedule!r}\n{result.stories()}"
    assert sum(result.history.acknowledged(op) for op in result.history.operations) > 10
    assert sum(op.kind == "read" and op.outcome == "ok" for op in result.history.operations) > 100


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_is_a_value(seed: int) -> None:
    """The same seed makes the same schedule, and its repr, pasted, an equal one."""
    schedule = Schedule.from_seed(seed, 60)
    assert schedule == Schedule.from_seed(seed, 60)
    assert eval(repr(schedule), {"Schedule": Schedule, "Step": Step}) == schedule
    assert schedule != Schedule.from_seed(seed + 1, 60)


@pytest.mark.parametrize("seed", range(20))
def test_a_schedule_spares_the_last_one(seed: int) -> None:
    """Roles change one at a time, only a replica is promoted, the primary does not lag, and all ends in time."""
    schedule, primary, changing = Schedule.from_seed(seed, 60), "primary", 0.0
    for step in schedule.steps:
        assert 0 <= step.at <= step.at + step.lasts <= 60.01
        if step.fault in {"promote", "failover", "undone"}:
            assert step.node != primary
            assert step.at >= changing
            changing = step.at + step.lasts
            primary = step.node if step.fault != "undone" else primary
        if step.fault in {"delay", "pause", "partition"}:
            assert step.node != primary
    assert changing > 0


def test_every_fault_comes_up() -> None:
    """Twenty seeds of a minute have all seventeen kinds, and two that overlap."""
    schedules = [Schedule.from_seed(seed, 60, processes=("worker-1",), stranger=True) for seed in range(20)]
    faults = {step.fault for schedule in schedules for step in schedule.steps}
    assert faults == {*get_args(Fault)}
    for schedule in schedules:
        pairs = zip(schedule.steps, schedule.steps[1:], strict=False)
        assert any(later.at < earlier.at + earlier.lasts for earlier, later in pairs)


def test_a_schedule_can_be_read() -> None:
    """For people: when, what, where, how much, for how long."""
    schedule = Schedule(7, 5, (Step(1.5, "delay", "replica-1", 2, 0.25), Step(3, "terminate", "replica-2")))
    assert str(schedule) == (
        "seed 7, 5 s\n    1.50 s  delay replica-1 by 0.25 s for 2 s\n    3.00 s  terminate replica-2"
    )
