"""Explains where a session would go now; nothing is asked of any node."""

import time

from lagwise._client.causality import Causality
from lagwise._decide.explaining import Explanation, explain
from lagwise._nodes.intent import Intent
from lagwise._nodes.offloading import OffloadingNodes


def explained(nodes: OffloadingNodes, intent: Intent, seen: Causality | None) -> Explanation:
    """Where a session with this intent would go, for a client that has seen this.

    The client is one whose reads may use replicas; where `offload` is 0, it is one that is held back.
    Raises `NotOpen`.
    """
    monitor, policy = nodes.monitor, nodes.policy
    view, seen = monitor.view, seen or Causality()
    if nodes.offload <= 0 and not (intent.write or intent.strong or view.alone):
        intent = intent.held_back
    return explain(
        view,
        policy,
        intent.demand(seen, policy, view),
        monitor.clock(),
        token=seen.token,
        wall=time.time(),
        fallen_back=len(nodes.fallen_back),
    )
