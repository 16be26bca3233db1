"""Gets the argument parsers of the commands by interrupting each command when it parses its arguments.

Commands build their parsers where they use them. Running ``main([])`` with argparse's own entry points replaced gives
the parser that the command would use, so commands need no extra code for the documents.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
from dataclasses import dataclass
from unittest import mock

from maskdet.cli.main import COMMANDS, MODULES

TOOLS = ("tools.augment", "tools.compare", "tools.make_scenes", "tools.draw_imports")
"""Modules with a command line that run from a checkout."""


@dataclass(frozen=True)
class Command:
    """How a command takes its arguments.

    Attributes:
        parser: the command's parser.
        passes_on: whether flags that it does not know are passed on to Beam.
    """

    parser: argparse.ArgumentParser
    passes_on: bool


class _Caught(BaseException):
    """Ends a command when it parses its arguments; not an ``Exception``, so that no command handles it."""

    def __init__(self, command: Command) -> None:
        self.command = command


def command_of(module: str) -> Command:
    """How a module with a ``main`` takes its arguments.

    Args:
        module: a dotted name, such as ``maskdet.cli.score``.

    Raises:
        LookupError: its ``main`` parses nothing.
    """

    def parse_args(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Caught(Command(parser, passes_on=False))

    def parse_known_args(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Caught(Command(parser, passes_on=True))

    main = importlib.import_module(module).main
    try:
        with (
            mock.patch.object(argparse.ArgumentParser, "parse_args", parse_args),
            mock.patch.object(argparse.ArgumentParser, "parse_known_args", parse_known_args),
        ):
            main([]) if inspect.signature(main).parameters else main()
    except _Caught as caught:
        return caught.command
    raise LookupError(f"{module}.main parsed no arguments")


def commands() -> dict[str, Command]:
    """Every subcommand of ``maskdet``, in the order of ``maskdet --help``."""
    return {name: command_of(f"maskdet.cli.{MODULES.get(name, name)}") for name in COMMANDS}


def flags(parser: argparse.ArgumentParser) -> list[str]:
    """Every flag of a parser and of its subparsers."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            found += [flag for step in action.choices.values() for flag in flags(step)]
    return found
