"""Between the decision and the session: asks for a route, and waits a little for a better View."""

from collections.abc import Callable

from lagwise._decide.route import Reason, Request, Route, refusal, route
from lagwise._decide.view import View
from lagwise._nodes.monitor import Monitor
from lagwise.policy import Policy

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.01  # seconds between asking lagging replicas again


async def choose(
    monitor: Monitor,
    policy: Policy,
    request: Callable[[View], Request],
    load: Callable[[str], float],
    avoid: frozenset[str] = frozenset(),
) -> Route:
    """The route for a session opened now, past the nodes to `avoid`.

    `request` says what the session asks of a view: a token's floor depends on which cluster it is of.

    Waits `policy.catch_up` at most for a replica to become fresh enough, and one probe at most when
    nobody can serve.

    Raises:
        NoPrimary: a write, or a read that needs the primary, while there is none.
        NoReplica: nothing is fresh enough and the policy keeps reads off the primary.
    """
    # Staleness counts from here, however long the wait: what was committed before the session opened.
    now = monitor.clock()

    def current() -> Route:
        view = monitor.view.without(avoid) if avoid else monitor.view
        return route(view, policy, request(view), now, load=load)

    chosen = current()
    if chosen.reason is Reason.NONE_CAUGHT_UP and request(monitor.view).expired:
        # Is the position out of reach for good, or is this server's clock ahead? The primary knows.
        await monitor.settled(now, now + policy.probe_timeout, every=True)
        chosen = current()
    if chosen.reason.may_improve and policy.catch_up and not avoid:
        chosen = await _catch_up(monitor, policy, current, chosen)
    if chosen.node is None:
        # A node that was lost a moment ago may only have lost one connection: ask it before saying no.
        # So may a node that somebody has promoted, when a token speaks of a timeline later than the view's.
        asked = monitor.clock()
        await monitor.settled(asked, asked + policy.probe_timeout, every=chosen.reason is Reason.OTHER_TIMELINE)
        chosen = current()
    if chosen.node is None:
        raise refusal(monitor.view, policy, chosen, monitor.clock())
    return chosen


async def _catch_up(monitor: Monitor, policy: Policy, current: Callable[[], Route], chosen: Route) -> Route:
    def improved() -> bool:
        nonlocal chosen
        chosen = current()
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
    return tuple(node.name for node in (view.rotation if reason is Reason.NONE_CAUGHT_UP else view.nodes))
