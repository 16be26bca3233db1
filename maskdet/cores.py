"""How many cores this process may use, whatever the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Overridden by tests.
_MEMBERSHIP = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores this process may use, at least one: its affinity, and the quotas of its control groups.

    Containers set such quotas, in version 2 of control groups (``cpu.max``) or version 1 (``cpu.cfs_quota_us``). Groups
    are nested, and the smallest quota on the way to the root applies.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]))


def _quotas() -> Iterator[int]:
    """Quotas in force, in whole cores, rounded up."""
    for folder in _group_folders():
        quota = _quota_of(folder)
        if quota is not None:
            yield quota


def _group_folders() -> Iterator[Path]:
    """Folders of the process's CPU groups and those above them.

    Inside a container, a group's path may be the host's, while its files are at the root of the mount;
    :func:`_quota_of` skips what does not exist.
    """
    yield _MOUNT
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [_MOUNT / controllers, _MOUNT / "cpu"] if controllers else [_MOUNT]
        group = Path(path.lstrip("/"))
        for mount in mounts:
            yield from (mount / part for part in (group, *group.parents))


def _quota_of(folder: Path) -> int | None:
    """The quota of one group, in cores; ``None`` where there is none."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        microseconds, each = int(quota), int(period)
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return -(-microseconds // each) if microseconds > 0 and each > 0 else None
