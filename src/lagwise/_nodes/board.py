"""The board: the latest View, the sessions that wait for a reading, and the events that a new View brings."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from lagwise._decide.events import Watcher
from lagwise._decide.failure import Cause
from lagwise._decide.news import news
from lagwise._decide.view import Node, Reading, Role, Standing, View
from lagwise._nodes.intent import forget_cluster, register_cluster
from lagwise._nodes.waiting import Queue


class Board:
    """Where watches write their readings. `view` is the latest picture; it is replaced, never changed."""

    def __init__(self, view: View, clock: Callable[[], float], tell: Watcher) -> None:
        self.view = view
        self.clock = clock
        self.vain = {node.name: 0 for node in view.nodes}
        """For each node, how many probes in a row have woken no session that waits."""
        self._tell = tell
        self._opened = False
        self._news: dict[str, Node] = {}
        self._floors, self._times, self._histories = Queue(), Queue(), Queue()
        self._laggards = Queue()

    def heard(self, name: str, reading: Reading | None, cause: Cause | None) -> None:
        """Publish a node's latest reading, or the cause why there is none."""
        self._publish(replace(self.view.node(name), reading=reading, cause=cause))

    def reading(self, name: str) -> Reading | None:
        """The node's latest reading, or None while it is unreachable."""
        node = self._news.get(name) or self.view.node(name)
        return node.reading

    def awaited(self, name: str) -> bool:
        """Whether a newer reading of the node may wake sessions that wait."""
        if self._times or self._histories:
            return True
        return bool(self._floors) and self.view.node(name).standing is Standing.IN_ROTATION

    def expected(self, name: str) -> bool:
        """Whether a newer reading of the node may end a wait for every replica; such a wait is in no hurry."""
        return bool(self._laggards) and self.view.node(name).standing is Standing.IN_ROTATION

    def behind(self, name: str) -> float:
        """Seconds by which the node was behind the primary when it was read."""
        node = self.view.node(name)
        if node.reading is None or node.reading.role is Role.PRIMARY:
            return 0.0
        return node.reading.at - node.fresh_at

    def open(self) -> None:
        """Judge all first readings together: the first node to answer must not decide which cluster is ours."""
        self._opened = True
        self._publish()

    def close(self) -> None:
        """Wake every session that waits, and publish nothing any more: one that outlives the Router may fail yet."""
        self._opened = False
        forget_cluster(self.view)
        for queue in (self._floors, self._times, self._histories, self._laggards):
            queue.reach()

    def _publish(self, *nodes: Node) -> None:
        self._news.update({node.name: node for node in nodes})
        if not self._opened:
            return
        before, fresh = self.view, self._news
        self.view, self._news = View.of((fresh.get(node.name, node) for node in before.nodes), before), {}
        register_cluster(before, self.view)
        self._wake(before, fresh)
        for event in news(before, self.view):
            self._tell(event)

    def _wake(self, before: View, fresh: Mapping[str, Node]) -> None:
        view, woken = self.view, 0
        if view.system != before.system or view.timeline != before.timeline or _standings(view) != _standings(before):
            # Other nodes may serve now, or none: such changes are rare, so every session that waits decides anew.
            woken = sum(queue.reach() for queue in (self._floors, self._times, self._histories))
            self._laggards.reach()
        elif view.rotation and (first := view.rotation[0]).reading is not None:
            woken = self._floors.reach(first.reading.lsn) + self._times.reach(first.fresh_at)
            if (last := view.rotation[-1]).reading is not None:
                self._laggards.reach(last.reading.lsn)
        for name in fresh:
            self.vain[name] = 0 if woken else self.vain.get(name, 0) + self.awaited(name)


def _standings(view: View) -> list[tuple[Standing, bool]]:
    return [(node.standing, node.drained) for node in view.nodes]
