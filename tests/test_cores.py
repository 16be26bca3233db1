"""How many cores a process may use: affinity, and quotas of both versions of control groups."""

import pytest

from maskdet import cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 cores whose control groups are files: path below the mount → content."""

    def make(membership, files):
        monkeypatch.setattr(cores.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
        monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "membership")
        monkeypatch.setattr(cores, "_MOUNT", tmp_path / "groups")
        if membership is not None:
            (tmp_path / "membership").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return cores.available_cores()

    return make


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("", 8),
    ],
)
def test_a_quota_of_version_2_is_rounded_up(machine, quota, expected):
    assert machine("0::/\n", {"cpu.max": quota}) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("300000", "100000", 3), ("-1", "100000", 8), ("50000", "100000", 1), ("x", "", 8)],
)
def test_a_quota_of_version_1_is_rounded_up(machine, quota, period, expected):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": quota, "cpu,cpuacct/cpu.cfs_period_us": period}
    # As in a container: the path is the host's, the files lie at the mount.
    assert machine("5:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n", files) == expected


def test_the_least_quota_on_the_way_to_the_root_holds(machine):
    files = {"a.slice/cpu.max": "300000 100000", "a.slice/b.service/cpu.max": "max 100000", "cpu.max": "max 100000"}
    assert machine("0::/a.slice/b.service\n", files) == 3


def test_without_control_groups_the_affinity_holds(machine):
    assert machine(None, {}) == 8
