"""Tasks in a process of their own: answers, errors, and ends that are not answers."""

import sys

import pytest

from maskdet.errors import ConfigError, ModelError
from maskdet.model.importing.limited import MIB, Limits, run_limited

TASKS = """
import os, time
from maskdet.errors import ConfigError
def double(argument): return {"twice": 2 * argument["number"]}
def refuse(argument): raise ConfigError("--flag", "a number", argument["number"], "Correct it.")
def grow(argument): return len(bytearray(8 << 30))
def nest(argument): return nest(argument)
def sleep(argument): time.sleep(60)
def crash(argument): os.abort()
def stumble(argument): raise OSError("no such thing")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(task, seconds=30, **argument)``: a task of the module above."""
    (tmp_path / "limited_tasks.py").write_text(TASKS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def run_it(task, seconds=30, **argument):
        return run_limited(f"limited_tasks:{task}", argument, Limits(2048 * MIB, seconds))

    return run_it


def test_an_answer_comes_back(run):
    assert run("double", number=21) == {"twice": 42}


def test_a_caller_s_mistake_stays_one(run):
    with pytest.raises(ConfigError) as caught:
        run("refuse", number=3)
    assert str(caught.value) == "--flag: expected a number, received 3. Correct it."


@pytest.mark.parametrize(
    ("task", "seconds", "received"),
    [
        ("grow", 30, "more memory"),
        ("nest", 30, "nested more deeply"),
        ("sleep", 1, "more than 1 s of time"),
        ("crash", 30, "SIGABRT"),
        ("stumble", 30, "OSError: no such thing"),
    ],
)
def test_an_end_without_an_answer_is_a_refusal(run, task, seconds, received):
    with pytest.raises(ModelError, match=received):
        run(task, seconds, number=0)
