"""Interpreters of a network, each prepared for a size of canvas, within a bound of memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Interpreter = TypeVar("Interpreter")

PREPARED_BYTES = 150_000_000
"""Of memory that a thread's interpreters may hold together; the one in use may need more by itself."""

# What an interpreter of the built-in detector holds (malloc's account): packed weights, then tensors.
INTERPRETER_BYTES = 1_800_000
PIXEL_BYTES = 65
# One that is resized to less keeps half of the difference for good, so only one of nearly the size is.
_MOST_SHRINKING = 1.25


class _Prepared(NamedTuple, Generic[Interpreter]):
    """An interpreter, and what it may hold."""

    interpreter: Interpreter
    most_pixels: int
    """Of all sizes that it was prepared for."""

    @property
    def held_bytes(self) -> int:
        return INTERPRETER_BYTES + PIXEL_BYTES * self.most_pixels


class PreparedSizes(Generic[Interpreter]):
    """The interpreters of the latest sizes; for one thread.

    Args:
        make: a new interpreter, of no size yet.
        prepare: makes an interpreter ready for canvases of a height and a width.
    """

    def __init__(self, make: Callable[[], Interpreter], prepare: Callable[[Interpreter, int, int], None]) -> None:
        self._make, self._prepare = make, prepare
        self._kept: OrderedDict[tuple[int, int], _Prepared[Interpreter]] = OrderedDict()

    def of(self, height: int, width: int) -> Interpreter:
        """The interpreter for a size of canvas, from now on the latest."""
        found = self._kept.pop((height, width), None)
        if found is None:
            found = self._new(height, width)
        self._kept[height, width] = found
        return found.interpreter

    def _new(self, height: int, width: int) -> _Prepared[Interpreter]:
        pixels = height * width
        prepared = self._make_room(pixels) or _Prepared(self._make(), pixels)
        self._prepare(prepared.interpreter, height, width)  # one whose preparation failed is not kept
        return prepared._replace(most_pixels=max(prepared.most_pixels, pixels))

    def _make_room(self, pixels: int) -> _Prepared[Interpreter] | None:
        """Drop those longest unused until there is memory for so many pixels more; one of them that may be resized."""
        room = PREPARED_BYTES - INTERPRETER_BYTES - PIXEL_BYTES * pixels
        fitting = None
        while self._kept and sum(one.held_bytes for one in self._kept.values()) > room:
            dropped = self._kept.popitem(last=False)[1]
            if dropped.most_pixels <= _MOST_SHRINKING * pixels:
                fitting = max(fitting or dropped, dropped, key=lambda one: one.most_pixels)
        return fitting
