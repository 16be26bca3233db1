"""Limits that a process sets for itself before it works on an untrusted file."""

from __future__ import annotations

import resource

MIB = 1024 * 1024


def set_limit(what: int, most: int) -> None:
    """Limit what this process, and those that it starts, may take; a lower limit from outside remains.

    Args:
        what: ``resource.RLIMIT_…``.
        most: bytes, or seconds of processor time.
    """
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
