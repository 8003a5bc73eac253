"""The errors of a session that no node may serve: each node, why it does not qualify, and what to do."""

from math import isfinite

from lagwise._decide.route import Route
from lagwise._decide.view import Node, Role, Standing, View
from lagwise.errors import NoPrimary, NoReplica, RoutingError
from lagwise.policy import Policy


def refusal(
    view: View,
    policy: Policy,
    chosen: Route,
    now: float,
    *,
    deposed: bool = False,
    failed: frozenset[str] = frozenset(),
) -> RoutingError:
    """The error for a route without a node: names the nodes, why each does not qualify, and what to do.

    Args:
        view: the nodes as they are known.
        policy: of the Router.
        chosen: the route.
        now: monotonic seconds.
        deposed: the client has written where another node was primary, one that is not known yet.
        failed: the nodes on which this read has failed, and where it does not run again.
    """
    nodes = "; ".join(
        f"{node.name}: {'this read has failed there' if node.name in failed else why(view, node, policy, now)}"
        for node in view.nodes
    )
    if view.primary is not None and deposed:
        return NoPrimary(
            f"this client has written on a later timeline than {view.primary.name} is on: another node was promoted, "
            f"and cannot be reached. {nodes}. Retry when it can."
        )
    if view.primary is not None:
        return NoReplica(
            f"no replica may serve this read ({chosen.reason}) and fall_back is False. {nodes}. "
            "Wait for a replica to catch up, or set Policy(fall_back=True)."
        )
    if view.identity.contradiction is not None:
        return NoPrimary(
            f"every node contradicts what is known of this cluster (timeline {view.timeline} of {view.system}): it may "
            f"have been restored, or a promotion undone. {nodes}. Retry: they are believed when they have said so for "
            f"{view.terms.patience:g} s."
        )
    if view.terms.pinned and (elsewhere := _of_other_clusters(view)):
        silent = ", ".join(node.name for node in view.nodes if node.reading is None)
        return NoPrimary(
            f"system={view.terms.pinned} names another cluster than that of the nodes ({', '.join(elsewhere)}), so "
            f"they are neither written to nor read from. {nodes}. Correct system= (LAGWISE_SYSTEM), or the URLs"
            f"{f'; or retry when {silent} can be reached' if silent else ''}."
        )
    if view.database.instead:
        return NoPrimary(
            "the application's URLs lead to another database now than before: it may have been made anew, or renamed. "
            f"{nodes}. Retry: this is believed when it has lasted for {view.terms.patience:g} s."
        )
    unconfirmed = [node.name for node in view.nodes if node.standing is Standing.UNCONFIRMED]
    if unconfirmed:
        return NoPrimary(
            f"{', '.join(unconfirmed)} may belong to another cluster: neither the node configured as primary nor a "
            f"majority of the nodes has said which cluster is ours. {nodes}. Retry when they answer, or pin the "
            "cluster with Router(system=...)."
        )
    if sum(node.standing is Standing.RIVAL_PRIMARY for node in view.nodes) > 1:
        return NoPrimary(f"two nodes say that they are the primary, so neither is used. {nodes}. Stop one of them.")
    mistakes = [node for node in view.nodes if node.cause is not None and node.cause.kind.mistake]
    remedy = "; ".join(f"{node.name}: {node.cause.kind.remedy}" for node in mistakes if node.cause is not None)
    if remedy and not any(node.reading is not None for node in view.nodes if node not in mistakes):
        return NoPrimary(
            f"no primary can be reached: this looks like a mistake, not like a failover. {nodes}. {remedy}."
        )
    advice = f"Retry when the failover is over{f', and {remedy}' if remedy else ''}"
    first = view.nodes[0].reading
    if first is not None and first.role is Role.REPLICA:
        advice += (
            f". {view.nodes[0].name} is configured as the primary, and is a replica (it is in recovery): "
            "where there is no failover, give the URL of the primary"
        )
    return NoPrimary(f"no primary can be reached ({chosen.reason}). {nodes}. {advice}.")


def _of_other_clusters(view: View) -> list[str]:
    """The nodes that answer, where all of them say that they belong to another cluster than ours."""
    answering = [node for node in view.nodes if node.reading is not None]
    others = [node.name for node in answering if node.reading is not None and node.reading.system != view.system]
    return others if len(others) == len(answering) else []


def no_place(chosen: Route, limit: int) -> NoReplica:
    """The error where `fall_back_limit` sessions read from the primary already."""
    return NoReplica(
        f"no replica may serve this read ({chosen.reason}), and {limit} sessions read from the primary in "
        "their place already (fall_back_limit). Retry when a replica is back, or raise the limit."
    )


def why(view: View, node: Node, policy: Policy, now: float) -> str:
    """Where a node stands, in the words of errors."""
    standing = view.standing(node, policy.max_lag, now)
    if standing is Standing.LAGGING:
        staleness = node.staleness(now)
        return f"lagging, staleness {f'{staleness:.3g} s' if isfinite(staleness) else 'not known'}"
    return f"{standing} ({node.cause})" if node.cause is not None else str(standing)
