"""Runs the steps of an import in this process instead of one for each."""

import importlib

import pytest

from maskdet.model.importing import bundling


@pytest.fixture
def in_this_process(monkeypatch):
    """Run tasks in this process, because each process of its own would import its libraries again (TensorFlow: 5 s).

    Tests of hostile files, of one LiteRT file and of one Keras file (test_importing.py) use real processes.
    """

    def run(task, argument, limits):
        module, function = task.split(":")
        return getattr(importlib.import_module(module), function)(argument)

    monkeypatch.setattr(bundling, "run_limited", run)
