"""Programs that tests start are built once, however many test workers want them."""

import multiprocessing
import time
from pathlib import Path

import pytest

from tools.flink import programs


def want(folder, name, outcome):
    """A test worker that wants a program; building one takes a moment and leaves a line."""
    programs.TOOLS = Path(folder)

    def make(made):
        with (Path(folder) / "made.txt").open("a") as lines:
            lines.write("made\n")
        time.sleep(0.5)
        if outcome == "fails":
            raise programs.NotInstallableError("no Go here")
        (made / "program").write_text("x")

    try:
        return str(programs._kept(name, make))
    except programs.NotInstallableError as error:
        return str(error)


@pytest.mark.parametrize(("outcome", "said"), [("succeeds", "tool"), ("fails", "no Go here")])
def test_several_processes_make_a_program_once(tmp_path, outcome, said):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(want, [(tmp_path / str(number), "warm", "succeeds") for number in range(3)])  # all have started
        found = pool.starmap(want, [(tmp_path, "tool", outcome)] * 3, chunksize=1)
    assert all(text.endswith(said) for text in found)
    assert (tmp_path / "made.txt").read_text() == "made\n"
    assert (tmp_path / "tool" / "program").exists() == (outcome == "succeeds")


def test_a_failure_of_before_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "TOOLS", tmp_path)
    assert want(tmp_path, "tool", "fails") == "no Go here"
    assert want(tmp_path, "tool", "succeeds") == str(tmp_path / "tool")
