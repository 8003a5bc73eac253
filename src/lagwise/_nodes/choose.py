"""Asks for a session's route, and waits a little for a better View."""

from collections.abc import Callable

from lagwise._decide.refusing import refusal
from lagwise._decide.route import Demand, Reason, Route, deposed, route
from lagwise._decide.view import View
from lagwise._nodes.monitor import Monitor
from lagwise._nodes.waiting import Wait
from lagwise.errors import NotOpen
from lagwise.policy import Policy


async def choose(
    monitor: Monitor,
    policy: Policy,
    demand: Callable[[View], Demand],
    wait: Wait,
    avoid: frozenset[str] = frozenset(),
) -> Route:
    """The route for a session opened now, past the nodes to `avoid`.

    `demand` says what the session asks of a view: a token's floor depends on which cluster it is of.

    Waits `policy.catch_up` at most for a replica to become fresh enough, and one probe at most when
    no node can serve; `wait` measures it.

    Raises:
        NotOpen: the Router was closed meanwhile: its pools must not be made anew.
        NoPrimary: a write, or a read that needs the primary, while there is none.
        NoReplica: nothing is fresh enough and the policy keeps reads off the primary.
    """
    # Staleness counts from here, however long the wait: what was committed before the session opened.
    now = monitor.clock()

    def current() -> Route:
        view = monitor.view.without(avoid) if avoid else monitor.view
        return route(view, policy, demand(view), now)

    chosen = current()
    if chosen.reason is Reason.NONE_CAUGHT_UP and demand(monitor.view).expired:
        # Is the position out of reach for good, or is this server's clock ahead? The primary knows.
        with wait:
            await monitor.settled(now, now + policy.probe_timeout, every=True)
        chosen = current()
    if chosen.reason.may_improve and policy.catch_up and not avoid:
        with wait:
            chosen = await _catch_up(monitor, policy, demand(monitor.view), now, current, chosen)
    every = chosen.reason is Reason.OTHER_TIMELINE
    if chosen.node is None and (every or any(node.reading is None for node in monitor.view.nodes)):
        # A node that was lost a moment ago may only have lost one connection: probe it before refusing the session.
        # When a token has a later timeline than the view, another node was promoted: probe all of them.
        asked = monitor.clock()
        with wait:
            await monitor.settled(asked, asked + policy.probe_timeout, every=every)
        chosen = current()
    if monitor.stopped:
        raise NotOpen("the Router was closed while this session waited for a node")
    if chosen.node is None:
        view = monitor.view
        other = deposed(view, demand(view), now)
        raise refusal(view, policy, chosen, monitor.clock(), deposed=other, failed=avoid)
    return chosen


async def _catch_up(
    monitor: Monitor, policy: Policy, demand: Demand, now: float, current: Callable[[], Route], chosen: Route
) -> Route:
    since, deadline = now - demand.bound(policy), monitor.clock() + policy.catch_up
    while chosen.reason.may_improve and await monitor.improved(chosen.reason, demand.floor, since, deadline):
        chosen = current()
    return chosen
