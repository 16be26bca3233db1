"""A terminal shows our own lines: notes of native libraries are left out; all else comes through, even a crash's."""

import io
import os
import subprocess
import sys

import pytest

from maskdet.cli.native_notes import is_note, pass_on
from maskdet.demo.faces import write_demo_tree

NOTES = [
    "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795800641.393148   20954 port.cc:153] oneDNN custom operations are on. You may see slightly …",
    "I1127 17:32:55.989000   20954 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use …",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with …",
    "E0000 00:00:1795800655.254288   20954 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: …",
    "2026-11-27 17:32:55.989123: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on.",
]
NEWS = [
    "E0000 00:00:1795800655.254288   20954 model_loader.cc:52] cannot read the model",
    "W0000 00:00:1795800655.254288   20954 a.cc:2] allocation of 8 GB exceeds 10 % of memory",
    "F0000 00:00:1795800655.254288   20954 a.cc:2] Check failed: x > 0",
    "ERROR: tensor 3 has no buffer",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "2026-11-27 17:32:55,989 INFO maskdet: 297 of 473 images",
    "Traceback (most recent call last):",
    "",
]


@pytest.mark.parametrize("line", NOTES)
def test_notes_are_known(line):
    assert is_note(line.encode())


@pytest.mark.parametrize("line", NEWS)
def test_news_are_not_taken_for_notes(line):
    assert not is_note(line.encode())


def test_lines_are_passed_on_whole_and_in_order():
    class Pieces(io.RawIOBase):
        text = "\n".join([NEWS[0], NOTES[0], NEWS[3], NOTES[5], "the last without an end"]).encode()

        def read(self, size):
            piece, self.text = self.text[:7], self.text[7:]
            return piece

    written = []
    pass_on(Pieces(), written.append)
    assert b"".join(written).decode().split("\n") == [NEWS[0], NEWS[3], "the last without an end"]


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


PREPARED = "import os, sys; from maskdet.cli.native_notes import leave_out_notes; put_back = leave_out_notes();"


def test_what_python_and_native_code_write_arrives():
    note = "INFO: Created TensorFlow Lite XNNPACK delegate"
    native = f"os.write(2, b'{note}\\nnative\\n'); put_back(); os.write(2, b'after\\n')"
    code = f"{PREPARED} print('python', file=sys.stderr); {native}"
    assert sorted(run_python(code).stderr.split()) == ["after", "native", "python"]


def test_the_last_words_of_a_crash_arrive():
    done = run_python(f"{PREPARED} os.write(2, b'Check failed: x > 0\\n'); os.abort()")
    assert done.returncode == -6
    assert done.stderr == "Check failed: x > 0\n"


def test_a_command_without_stderr_runs():
    done = run_python(f"os = __import__('os'); os.close(2); {PREPARED} put_back(); print('done')")
    assert done.stdout == "done\n"


def test_a_run_writes_nothing_but_our_lines(tmp_path):
    write_demo_tree(tmp_path / "photos", sites=1, cameras_per_site=1, days=1, hours=(8,), images_per_hour=3)
    flags = ["--faces", "detect", "--set", "failure_budget.max_ratio=1"]
    command = ["score", "--input", str(tmp_path / "photos"), "--output", str(tmp_path / "tables"), *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "GLOG"))}
    done = subprocess.run(
        [sys.executable, "-m", "maskdet.cli.main", *command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("run ")
    assert [line for line in done.stderr.splitlines() if " INFO maskdet" not in line] == []
