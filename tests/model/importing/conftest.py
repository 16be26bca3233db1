"""The parts of an import, without a process for each."""

import importlib

import pytest

from maskdet.model.importing import bundling


@pytest.fixture
def in_this_process(monkeypatch):
    """Tasks run here: each process of its own would import its libraries anew, TensorFlow in 5 s.

    Tests of hostile files, of a file of LiteRT and of one of Keras (test_importing.py) let them have their processes.
    """

    def run(task, argument, limits):
        module, function = task.split(":")
        return getattr(importlib.import_module(module), function)(argument)

    monkeypatch.setattr(bundling, "run_limited", run)
