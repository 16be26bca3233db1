"""How far a run has come, counted where the work is done; a terminal shows it if both are in the same process."""

from __future__ import annotations

import threading
from typing import NamedTuple


class ProgressState(NamedTuple):
    """Images of a run so far."""

    listed: int = 0
    done: int = 0
    kept: int = 0
    """Those of them that were kept from an earlier run, at no cost."""
    failed: int = 0


class Progress:
    """Counts to which any thread may add."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = ProgressState()

    @property
    def state(self) -> ProgressState:
        """The counts now."""
        return self._state

    def reset(self) -> None:
        """Start from nothing."""
        with self._lock:
            self._state = ProgressState()

    def add_listed(self, images: int) -> None:
        """Count images found."""
        with self._lock:
            self._state = self._state._replace(listed=self._state.listed + images)

    def add_done(self, images: int, *, kept: bool = False) -> None:
        """Count images finished, or kept from an earlier run."""
        with self._lock:
            state = self._state
            self._state = state._replace(done=state.done + images, kept=state.kept + (images if kept else 0))

    def add_failed(self, images: int) -> None:
        """Count failed images among those finished."""
        with self._lock:
            self._state = self._state._replace(failed=self._state.failed + images)


PROGRESS = Progress()
