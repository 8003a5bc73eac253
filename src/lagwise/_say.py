"""Logs events; a logging filter or handler of the application's that raises does not harm the caller."""

import logging
from typing import Any

_log = logging.getLogger("lagwise")


def say(level: int, event: str, **extra: Any) -> None:
    """Log this event and its fields. A filter or handler that raises loses the record, never the task that reports it.

    `logging.raiseExceptions` guards a handler's emit() alone: a filter's exception reaches the caller. A WARNING
    or worse goes to standard error then, as it would without any handler.
    """
    try:
        if _log.isEnabledFor(level):
            _log.log(level, *_message(event, extra), extra=extra)
    except Exception as error:
        if level >= logging.WARNING and logging.lastResort is not None:
            text = f"{event} {extra} (logging failed: {type(error).__name__})"
            logging.lastResort.handle(logging.makeLogRecord({"levelno": level, "msg": text}))


def _message(event: str, fields: dict[str, Any]) -> tuple[str] | tuple[str, dict[str, Any]]:
    """The event with a place for each field, and the fields apart: error trackers group records by this template."""
    if not fields:
        return (event,)  # without arguments logging prints it as it is, also a percent sign
    return f"{event.replace('%', '%%')}: {' '.join(f'{name}=%({name})s' for name in fields)}", fields
