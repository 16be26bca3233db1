"""The ``maskdet`` command and its subcommands."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from maskdet import __version__
from maskdet.cli.console import set_up_logging
from maskdet.cli.lean_imports import unused_left_out
from maskdet.cli.native_notes import leave_out_notes

COMMANDS = {
    "score": "find faces in images, tell which wear a mask, write tables",
    "evaluate": "measure a model on labelled images",
    "status": "show how far a run is",
    "inspect": "show the tables of an output, or a sheet of its faces",
    "audit": "label a random sample of faces, and say what it means",
    "diff": "compare two outputs or periods: coverage, then rates",
    "report": "write one page about an output, for people",
    "explore": "look into an output in the browser, down to its faces",
    "prune": "remove rows of images taken before a day",
    "files": "name the files of a table as of the last run",
    "delta": "show the tables of an output as Delta Lake tables",
    "preview": "draw boxes, labels and probabilities on some images",
    "watch": "watch a camera or a film as it runs",
    "compare-runs": "compare two outputs over the same photographs, face by face",
    "prepare": "check labelled images for duplicates and leaks, cut splits",
    "train": "train a model from a recipe",
    "export": "write a model in other formats: Keras, SavedModel, LiteRT, ONNX",
    "import": "make a bundle of a model of your own: Keras, SavedModel, ONNX, LiteRT",
    "config": "list and show the configs that come with the package",
    "demo": "draw images of faces to try everything on",
}


MODULES = {"import": "importing", "compare-runs": "compare_runs"}
"""Modules of commands whose names cannot be names of modules."""

MOVED = {"compare": "tools.compare", "compose": "tools.augment", "scenes": "tools.make_scenes"}
"""Commands that made the models that ship; they run from a checkout, under these names for one more version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        set_up_logging()
        with unused_left_out():  # imported on demand: `maskdet demo` needs neither Beam nor TensorFlow
            command = importlib.import_module(f"maskdet.cli.{MODULES.get(arguments[0], arguments[0])}")
        return int(command.main(arguments[1:]))
    if arguments and arguments[0] in MOVED:
        return _run_moved(arguments[0], arguments[1:])
    if arguments == ["--version"]:
        print(f"maskdet {__version__}")
        return 0
    if arguments and not arguments[0].startswith("-"):
        close = difflib.get_close_matches(arguments[0], [*COMMANDS, *MOVED], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(COMMANDS)}"
        print(f"maskdet: there is no command {arguments[0]!r}; {hint}", file=sys.stderr)
        return 2
    asked = arguments in (["--help"], ["-h"])
    print(_usage(), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _run_moved(name: str, arguments: Sequence[str]) -> int:
    """Run a command that is no longer part of the package, if this is a checkout."""
    module = MOVED[name]
    try:
        command = importlib.import_module(module)
    except ModuleNotFoundError:
        remedy = f"run it in a checkout of the project: python -m {module}"
        print(f"maskdet: '{name}' is no longer part of the installed package; {remedy}", file=sys.stderr)
        return 2
    print(f"maskdet: '{name}' is deprecated. From version 0.3 on, use: python -m {module}", file=sys.stderr)
    set_up_logging()
    return int(command.main(arguments))


def _usage() -> str:
    lines = [f"  {name:<12} {description}" for name, description in COMMANDS.items()]
    return "\n".join(["usage: maskdet COMMAND …   (more: maskdet COMMAND --help)", "", *lines])


def run() -> NoReturn:
    """The command as a process: :func:`main` without tearing down the interpreter, which takes half a second."""
    put_back = leave_out_notes()
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            stream.flush()
    put_back()
    os._exit(code)


if __name__ == "__main__":
    run()
