"""What a command costs with everything it starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.process_tree import Process, TreeUsage, descendants, measure, parse_pss, parse_stat

ROOT = Path(__file__).parents[2]
STAT = (
    "1234 (a (b) c) S 77 1234 1234 0 -1 4194304 100 200 0 0 250 50 9000 9000 20 0 3 0 424242 1000000 500 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0"
)


def test_a_stat_line_is_read_past_a_name_with_brackets():
    # Fields 14 and 15, user and system time, are the process' own; 16 and 17, its children's, must not count.
    assert parse_stat(STAT) == Process(pid=1234, parent=77, ticks=300, start=424242)


def test_memory_is_the_proportional_size():
    text = "55d-7ff ---p 00000000 00:00 0   [rollup]\nRss:  9000 kB\nPss:   4321 kB\nPss_Dirty:  17 kB\n"
    assert parse_pss(text) == 4321
    assert parse_pss("") == 0


def test_descendants_are_found_at_any_depth_and_nothing_else():
    pairs = [(1, 0), (10, 1), (11, 10), (12, 11), (13, 10), (20, 1), (21, 20)]
    processes = [Process(pid, parent, 0, pid) for pid, parent in pairs]
    assert sorted(process.pid for process in descendants(processes, 10)) == [11, 12, 13]
    assert descendants(processes, 21) == []


def test_a_tree_costs_the_last_ticks_of_each_process_and_the_highest_sum_of_memory():
    usage = TreeUsage()
    usage.add([Process(5, 1, 100, 900), Process(6, 5, 30, 901)], {5: 1000, 6: 500})
    usage.add([Process(5, 1, 150, 900)], {5: 1200})
    # The id 6 again, but another process: its ticks come on top.
    usage.add([Process(5, 1, 160, 900), Process(6, 5, 40, 990)], {5: 300, 6: 700})
    assert usage.peak_kib == 1500
    assert usage.cpu_s == pytest.approx((160 + 30 + 40) / 100)


BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


@pytest.fixture
def cost_of(tmp_path):
    def run(code, **options):
        return measure([sys.executable, "-c", code], stdout=tmp_path / "out", stderr=tmp_path / "err", **options)

    return run


def test_orphans_count_and_are_waited_for(cost_of, tmp_path):
    # The child's child is in a session of its own, and nobody waits for it: what a framework's daemon looks like.
    burn = BURN.format(seconds=0.4) + f"open({str(tmp_path / 'done')!r}, 'w').close()"
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {burn!r}], start_new_session=True)"
    cost = cost_of(code)
    assert cost.exit_code == 0
    assert (tmp_path / "done").exists()
    assert cost.cpu_s >= 0.4


def test_processes_that_the_kernel_reaps_count(cost_of):
    # A parent that ignores SIGCHLD never gets its children's times; only samples see them.
    burn = BURN.format(seconds=1.5)
    code = (
        "import os, signal, sys, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"child = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, '-c', {burn!r}])\n"
        "try: os.waitpid(child, 0)\nexcept ChildProcessError: pass\n"
    )
    assert cost_of(code).cpu_s >= 0.75


def test_memory_is_that_of_the_tree(cost_of):
    hold = "import time; held = b'x' * (80 << 20); time.sleep(1.5)"
    code = (
        "import subprocess, sys\n"
        f"both = [subprocess.Popen([sys.executable, '-c', {hold!r}]) for _ in range(2)]\n"
        "[child.wait() for child in both]"
    )
    assert 160 <= cost_of(code).peak_mib < 260
    assert 300 <= cost_of("import time; held = b'x' * (300 << 20); time.sleep(1.5)").peak_mib < 400


def test_memory_of_the_one_who_measures_does_not_count(tmp_path):
    # A child's peak, as the kernel keeps it, begins with its parent's.
    code = (
        "import sys\nfrom pathlib import Path\nfrom benchmarks.process_tree import measure\nheld = b'x' * (300 << 20)\n"
        "print(measure(['sleep', '1'], stdout=Path(sys.argv[1]), stderr=Path(sys.argv[2])).peak_mib)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "err")]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert 0 < float(printed) < 50


def test_a_command_that_hangs_is_killed_with_its_children(cost_of):
    code = "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\ntime.sleep(600)"
    assert cost_of(code, timeout_s=1.0).exit_code == -9


def test_output_and_exit_code_are_the_commands(cost_of, tmp_path):
    cost = cost_of("import os, sys\nprint(os.environ['GIVEN'])\nsys.exit(7)", environment={"GIVEN": "so"})
    assert cost.exit_code == 7
    assert (tmp_path / "out").read_text() == "so\n"
