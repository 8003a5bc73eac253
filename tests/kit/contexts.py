"""What a request leaves behind in the tasks and timers that outlive it."""

import gc
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from weakref import ref


class Traced:
    """What a request keeps in its context: a trace, a user, a session."""


trace: ContextVar[Traced | None] = ContextVar("trace", default=None)


def outlived(act: Callable[[], object]) -> bool:
    """Whether anything keeps the context of a request that has called this function, and ended."""

    def request() -> ref[Traced]:
        mine = Traced()
        trace.set(mine)
        act()
        return ref(mine)

    kept = copy_context().run(request)
    gc.collect()
    return kept() is not None
