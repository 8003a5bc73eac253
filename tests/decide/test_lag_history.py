"""How lag is measured: the primary's past positions, sampled, and a staleness that is never too low."""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import accumulate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lagwise._decide.lag_history
from lagwise import LSN
from lagwise._decide.lag_history import LagHistory

rising = st.lists(st.tuples(st.floats(0.001, 5), st.integers(0, 9)), min_size=1, max_size=60).map(
    lambda steps: list(
        zip(accumulate(step[0] for step in steps), accumulate((step[1] for step in steps), initial=1), strict=False)
    )
)
"""A primary's samples: (when, where), both rising, the position standing still now and then."""


def sampled(samples: list[tuple[float, int]]) -> LagHistory:
    """The history that saw these samples."""
    history = LagHistory()
    for at, lsn in samples:
        history = history.seen(LSN(lsn), at)
    return history


@given(rising, st.integers(0, 600))
def test_freshness_is_the_latest_sample_at_or_below(samples: list[tuple[float, int]], replayed: int) -> None:
    """A replica is as fresh as the last moment at which the primary had written no more than it has replayed."""
    expected = max((at for at, lsn in samples if lsn <= replayed), default=-inf)
    assert expected == sampled(samples).fresh_at(LSN(replayed))


@given(rising, st.integers(3, 9), st.integers(0, 600))
def test_thinning_only_overstates_staleness(samples: list[tuple[float, int]], most: int, replayed: int) -> None:
    """A long history forgets samples between others: a replica can only look staler than it is."""
    full = sampled(samples).fresh_at(LSN(replayed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lagwise._decide.lag_history, "_SAMPLES", most)
        thin = sampled(samples)
    assert len(thin.lsns) == len(thin.times) <= most
    assert thin.fresh_at(LSN(replayed)) <= full
    # What has everything is measured exactly.
    newest = samples[-1]
    assert newest[0] == thin.fresh_at(LSN(newest[1]))


@pytest.mark.parametrize("gap", [0.5, 0.01, 0.002, 0.001])
def test_history_reaches_back_as_far_as_the_lag_bound_however_often_it_is_sampled(gap: float) -> None:
    """Readers in a hurry and commits make the monitor ask every few milliseconds.

    A replica that is some seconds behind must not be called a minute stale for it, out of a rotation whose
    bound is five: all reads would go to the primary under the very load that the replicas are for.
    """
    count = int(30 / gap)
    history = sampled([(step * gap, 1000 + step) for step in range(count)])
    for behind in (0.1, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0):
        steps = int(behind / gap)
        staleness = (count - 1) * gap - history.fresh_at(LSN(1000 + count - 1 - steps))
        assert steps * gap - 1e-6 <= staleness <= steps * gap * 1.1 + gap


@given(st.integers(0, 2**32), st.floats(0.0, 1.0))
def test_bursts_between_quiet_times_do_not_wear_it_out(seed: int, hurried: float) -> None:
    """Thinned again and again, at any mixture of paces, it stays near the truth up to the bound.

    Near is a tenth of the staleness, and one gap between two quiet probes.
    """
    random_ = random.Random(seed)
    now, samples, history = 0.0, [], LagHistory()
    for lsn in range(1, 1200):
        now += 0.002 if random_.random() < hurried else random_.choice([0.01, 0.1, 0.5])
        samples.append(now)
        history = history.seen(LSN(lsn), now)
    for lsn, at in enumerate(samples, 1):
        if now - at <= 5.0 and at > 0.1 * now:  # it may forget its own beginning
            assert at - 0.1 * (now - at) - 0.5 <= history.fresh_at(LSN(lsn)) <= at


def test_a_long_life_does_not_grow_the_history() -> None:
    """A day of samples takes the memory of a few minutes, and still tells a replica that is hours behind."""
    history = sampled([(at / 2, at) for at in range(1, 20_000)])
    assert len(history.lsns) == len(history.times) <= 512
    assert 0 < history.fresh_at(LSN(10_000)) <= 5_000
    assert -inf == history.fresh_at(LSN(0))


@given(
    st.lists(st.tuples(st.floats(0.01, 3), st.integers(1, 9)), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), min_size=1, max_size=30),
    st.integers(3, 9),
    st.integers(0, 60),
)
def test_every_commit_before_the_fresh_time_has_been_replayed(
    steps: list[tuple[float, int]], probes: list[int], most: int, behind: int
) -> None:
    """The promise behind every staleness: what was acknowledged before `fresh_at` is in what was replayed.

    Commits happen at some times and end at some positions; a probe that is sent at a time reads a
    position that covers all commits before it, and maybe later ones; a replica has replayed up to some
    commit.
    """
    times = list(accumulate(step[0] for step in steps))
    ends = list(accumulate(step[1] for step in steps))
    history = LagHistory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lagwise._decide.lag_history, "_SAMPLES", most)
        for at in sorted(probe for probe in probes):
            answered = bisect_right(times, at) + at % 2  # the answer may already cover the next commit
            if 0 < answered <= len(ends):
                history = history.seen(LSN(ends[answered - 1]), at)
    replayed = LSN(ends[min(behind, len(ends) - 1)])
    fresh_at = history.fresh_at(replayed)
    assert [end for when, end in zip(times, ends, strict=True) if when < fresh_at and end > replayed] == []


@given(rising, st.integers(1, 60))
def test_an_idle_primary_keeps_its_replicas_fresh(samples: list[tuple[float, int]], idle: int) -> None:
    """While nothing is written, a replica that has everything is as fresh as the last probe; memory stands still."""
    history = sampled(samples)
    at, lsn = samples[-1]
    later = sampled([*samples, *((at + second, lsn) for second in range(idle))])
    assert later.fresh_at(LSN(lsn)) == at + (idle - 1)
    assert len(history.lsns) == len(later.lsns)


@given(rising, st.integers(0, 200), st.integers(0, 600))
def test_a_crash_that_lost_log_takes_its_samples_along(
    samples: list[tuple[float, int]], lost_to: int, replayed: int
) -> None:
    """After the primary came back at a lower position, no position above it vouches for anything."""
    at = samples[-1][0] + 1
    history = sampled(samples).seen(LSN(lost_to), at)
    survived = [(when, lsn) for when, lsn in samples if lsn <= lost_to]
    expected = max((when for when, lsn in [*survived, (at, lost_to)] if lsn <= replayed), default=-inf)
    assert expected == history.fresh_at(LSN(replayed))


def test_a_late_answer_does_not_turn_time_back() -> None:
    """Equal positions keep the latest time, in whatever order they are seen."""
    assert sampled([(2.0, 5)]) == sampled([(2.0, 5), (1.0, 5)])
