"""Between the decision and the session: asks for a route, and waits a little for a better View."""

from collections.abc import Callable

from lagwise.monitor import Monitor
from lagwise.policy import Policy
from lagwise.route import Reason, Request, Route, refusal, route
from lagwise.view import View

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.01  # seconds between asking lagging replicas again


async def choose(
    monitor: Monitor,
    policy: Policy,
    request: Request,
    load: Callable[[str], float],
    avoid: frozenset[str] = frozenset(),
) -> Route:
    """The route for a session opened now, past the nodes to `avoid`.

    Waits `policy.catch_up` at most for a replica to become fresh enough, and one probe at most when
    nobody can serve.

    Raises:
        NoPrimary: a write, or a read that needs the primary, while there is none.
        NoReplica: nothing is fresh enough and the policy keeps reads off the primary.
    """
    if avoid:
        return _must_lead(monitor, policy, request, avoid)
    # Staleness counts from here, however long the wait: what was committed before the session opened.
    now = monitor.clock()
    chosen = route(monitor.view, policy, request, now, load=load)
    if chosen.reason.may_improve and policy.catch_up:
        chosen = await _catch_up(monitor, policy, request, now, load)
    if chosen.node is None:
        # A node that was lost a moment ago may only have lost one connection: ask it before saying no.
        asked = monitor.clock()
        await monitor.settled(asked, asked + policy.probe_timeout)
        chosen = route(monitor.view, policy, request, now, load=load)
    if chosen.node is None:
        raise refusal(monitor.view, policy, chosen, monitor.clock())
    return chosen


def _must_lead(monitor: Monitor, policy: Policy, request: Request, avoid: frozenset[str]) -> Route:
    """A route at once, without the nodes that have just failed this session."""
    view, now = monitor.view.without(avoid), monitor.clock()
    chosen = route(view, policy, request, now)
    if chosen.node is None:
        raise refusal(view, policy, chosen, now)
    return chosen


async def _catch_up(
    monitor: Monitor, policy: Policy, request: Request, now: float, load: Callable[[str], float]
) -> Route:
    chosen = route(monitor.view, policy, request, now, load=load)

    def improved() -> bool:
        nonlocal chosen
        chosen = route(monitor.view, policy, request, now, load=load)
        return not chosen.reason.may_improve

    deadline, pause = monitor.clock() + policy.catch_up, _FIRST_PAUSE
    while True:
        monitor.hurry(_worth_asking(monitor.view, chosen.reason))
        until = min(deadline, monitor.clock() + pause)
        if await monitor.until(improved, until) or until == deadline:
            return chosen
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _worth_asking(view: View, reason: Reason) -> tuple[str, ...]:
    """The nodes whose newer reading could help; freshness without a floor needs the primary's as well."""
    if reason is Reason.NONE_CAUGHT_UP:
        return tuple(node.name for node in view.rotation)
    return tuple(node.name for node in view.nodes)
