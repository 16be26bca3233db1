"""When to stop: a function of the history alone, so that a resumed run decides like an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from maskdet.training.recipe import EarlyStopping


def best_epoch(history: Sequence[Mapping[str, float]], settings: EarlyStopping) -> int:
    """The epoch, from 0, of the last figure that was better than the best before it by more than ``min_delta``.

    A figure that is not a number is never better.
    """
    sign = 1.0 if settings.monitor.endswith("accuracy") else -1.0
    best, best_value = 0, float("-inf")
    for epoch, row in enumerate(history):
        value = sign * row[settings.monitor]
        if value > best_value + settings.min_delta:
            best, best_value = epoch, value
    return best


def should_stop(history: Sequence[Mapping[str, float]], settings: EarlyStopping | None) -> bool:
    """Whether the last ``patience`` epochs brought no new best."""
    if settings is None or not history:
        return False
    return len(history) - 1 - best_epoch(history, settings) >= settings.patience
