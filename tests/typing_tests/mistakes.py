"""What a type checker must refuse, line by line: each is a mistake that no test of the application may meet.

`mypy --strict` fails where a line has no such error: the comment that excuses it is unused then.
"""

from lagwise import Causality, Policy, Replica, Router
from lagwise.httpx import propagate
from lagwise.store import RedisStore

Policy(5.0)  # type: ignore[call-arg]
Policy(max_lag="5")  # type: ignore[arg-type]
Policy(without_primary="ignore")  # type: ignore[arg-type]
Policy(max_age=5.0)  # type: ignore[call-arg]
Router()  # type: ignore[call-arg]
Router(primary=None)  # type: ignore[arg-type]
Router("postgresql://", replicas={"a": 1})  # type: ignore[dict-item]
Router("postgresql://", policy={})  # type: ignore[arg-type]
Replica("postgresql://", 2)  # type: ignore[call-arg]
Causality(7)  # type: ignore[arg-type]
Router("postgresql://").read(max_staleness="1")  # type: ignore[arg-type]
Router("postgresql://").view.nodes[0].name = "x"  # type: ignore[misc]
RedisStore(7)  # type: ignore[arg-type]
propagate("http://a", secret="x")  # type: ignore[type-var]
