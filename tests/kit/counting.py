"""Bytecode instructions, counted: the same on every machine, in every mood."""

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


class instructions:
    """Counts the instructions that the block executes, in all its greenlets; `of` chooses the code that counts.

    A class, and no generator: the end of the block would be counted with it.
    """

    def __init__(self, of: Callable[[CodeType], bool] = lambda _: True) -> None:
        self._of = of
        self._counted = [0]
        self._before: Any = None

    def __enter__(self) -> list[int]:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self._counted

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename == __file__ or not self._of(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        self._counted[0] += event == "opcode"
        return self._trace
