"""A thread that works beside a body of code, and ends with it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def running_beside(work: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run something in a thread while the body runs, and wait for its end.

    Args:
        work: takes an event, and returns soon after that is set.
        name: of the thread.
    """
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
