"""What an application hangs into logging."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_request_id: ContextVar[str] = ContextVar("request_id")


class _NeedsARequest(logging.Filter):
    """As it is in many applications: right inside a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = _request_id.get()
        return True


@contextmanager
def a_filter_that_raises() -> Iterator[None]:
    """Every record of lagwise, DEBUG too, raises LookupError in a filter: logging hands it on to the caller."""
    handler = logging.NullHandler()
    handler.handle = lambda record: _NeedsARequest().filter(record)  # type: ignore[method-assign]
    logger = logging.getLogger("lagwise")
    logger.addHandler(handler)
    level, logger.level = logger.level, logging.DEBUG
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level = level


def event_of(record: logging.LogRecord) -> str:
    """The event of a record of lagwise, whose message must be the event and its fields, as `extra` has them."""
    message = record.getMessage()
    if record.name != "lagwise":
        return message
    event = message.partition(":")[0]
    names = record.args if isinstance(record.args, dict) else ()
    fields = [f"{name}={vars(record)[name]}" for name in names]
    assert message == (f"{event}: {' '.join(fields)}" if fields else event)
    return event
