"""Waits until every replica has a position: after a migration, before what needs it is started."""

import asyncio
import math
from math import inf

from lagwise._decide.catching_up import comparable, not_caught_up, still_behind, target
from lagwise._decide.token import CausalToken, Position
from lagwise._nodes.monitor import Monitor
from lagwise.errors import NotOpen
from lagwise.policy import Policy

_NOTHING = CausalToken()
# Seconds until the view is looked at again, where nothing could be waited for: the primary was asked and refuses new
# connections, or too many wait already. Without it the loop would hold the process.
_PAUSE = 0.05


async def caught_up(
    monitor: Monitor,
    policy: Policy,
    token: CausalToken | str | None,
    timeout: float,  # noqa: ASYNC109 - the error tells what was waited for
) -> CausalToken:
    """Wait until every replica has what the token stands for, or what the primary has now; answers that position.

    Raises:
        NotCaughtUp: some replica does not, after `timeout` seconds.
        NotOpen: the Router was closed meanwhile.
        InvalidToken, ValueError: the text is not a token; `timeout` is not a number of seconds.
    """
    if isinstance(timeout, bool) or not (math.isfinite(timeout) and timeout >= 0):
        raise ValueError(f"timeout must be a number of seconds, at least 0, not {timeout!r}")
    if isinstance(token, str):
        token = CausalToken.parse(token)
    if monitor.view.alone or (token is not None and not token):
        return token or _NOTHING
    began = monitor.clock()
    deadline = began + timeout
    # All nodes are asked once, at the same time; from then on the readings that come anyway are enough.
    await monitor.settled(began, min(deadline, began + 2 * policy.probe_timeout), every=True)
    goal: Position | None = None
    while True:
        if monitor.stopped:
            raise NotOpen("the Router was closed while this waited for its replicas")
        view = monitor.view
        if view.alone:
            return token or _NOTHING
        if goal is None or not comparable(view, goal):
            goal = target(view, token, began)
        lack = still_behind(view, goal) if goal is not None else ()
        if goal is not None and not lack:
            return CausalToken.of([goal])
        if (
            goal is None
            and view.primary is not None
            and (view.primary.reading is None or view.primary.reading.at < began)
        ):
            reached = await monitor.after(view.primary.name, began, deadline) is not None
        else:
            # Where only nodes out of rotation lack it, no position that a replica reaches changes that.
            rotating = goal is not None and any(node in view.rotation for node in lack)
            reached = await monitor.reached_by_all(goal.lsn if goal is not None and rotating else inf, deadline)
        if not reached:
            if monitor.clock() >= deadline:
                raise not_caught_up(monitor.view, goal, timeout, monitor.clock())
            await asyncio.sleep(_PAUSE)
