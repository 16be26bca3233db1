"""What a command costs, including everything that it starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.process_tree import measure

ROOT = Path(__file__).parents[2]
BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


@pytest.fixture
def cost_of(tmp_path):
    def run(code, **options):
        return measure([sys.executable, "-c", code], stdout=tmp_path / "out", stderr=tmp_path / "err", **options)

    return run


def test_orphans_count_and_are_waited_for(cost_of, tmp_path):
    # The child's child is in a session of its own, and nobody waits for it, as with a framework's daemon.
    burn = BURN.format(seconds=0.4) + f"open({str(tmp_path / 'done')!r}, 'w').close()"
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {burn!r}], start_new_session=True)"
    cost = cost_of(code)
    assert cost.exit_code == 0
    assert (tmp_path / "done").exists()
    assert cost.cpu_s >= 0.4


def test_processes_that_the_kernel_reaps_count(cost_of):
    # A parent that ignores SIGCHLD never gets its children's times; only sampling sees them.
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
    # The peak memory that the kernel keeps for a child starts at its parent's.
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
