"""Explains where a session would go now; nothing is asked of any node."""

import time

from lagwise._client.causality import Causality
from lagwise._decide.explaining import Explanation, explain
from lagwise._nodes.intent import Intent
from lagwise._nodes.nodes import Nodes


def explained(nodes: Nodes, intent: Intent, seen: Causality | None) -> Explanation:
    """Where a session with this intent would go, for a client that has seen this. Raises `NotOpen`."""
    monitor, policy = nodes.monitor, nodes.policy
    view, seen = monitor.view, seen or Causality()
    return explain(
        view,
        policy,
        intent.demand(seen, policy, view),
        monitor.clock(),
        token=seen.token,
        wall=time.time(),
        fallen_back=len(nodes.fallen_back),
    )
