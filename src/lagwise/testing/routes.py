"""Where a session went, asserted with a message that shows the scenario."""

from __future__ import annotations

from typing import Any


def assert_route(session: object, *, node: str | None = None, reason: str | None = None) -> None:
    """Assert that this session of a Router went to this node, for this reason; what is None may be anything.

    Raises:
        AssertionError: it went elsewhere, or for another reason, or has no route. The message says where and why it
            went, and how the nodes stand now.
    """
    __tracebackhide__ = True
    route = getattr(session, "info", {}).get("lagwise.route")
    if route is None:
        raise AssertionError("this session has no route: it has not been used yet, or is not one of a lagwise Router")
    if node in {None, route.node} and reason in {None, str(route.reason)}:
        return
    expected = "; ".join([node or "any node", *([f"reason={reason}"] if reason is not None else [])])
    raise AssertionError(f"the session went to {route}, expected was {expected}{_scenario(session)}")


def _scenario(session: Any) -> str:
    nodes = getattr(getattr(getattr(session, "sync_session", session), "lease", None), "nodes", None)
    return f"\n  {nodes.monitor.scenario}" if nodes is not None and nodes.is_open else ""
