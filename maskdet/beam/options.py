"""Beam options on the command line and in a runner's YAML file, with clear errors for those that Beam does not know."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Sequence
from typing import Any

import yaml
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, _BeamArgumentParser

from maskdet.errors import ConfigError
from maskdet.named_configs import RUNNERS, find_config

# DirectRunner would first look for the Prism runner, a binary that it wants to download.
DEFAULT_RUNNER = "FnApiRunner"
_ABOUT_AS_CLOSE = 0.1
RUNNER_CONFIG_HELP = "Beam options: dataflow, dataflow_gpu, flink, flink_kubernetes or a YAML file; flags win over it"


class _KeptViews(PipelineOptions):  # type: ignore[misc]  # Beam is untyped
    """Options whose views are made once.

    Beam asks for one at each of a pipeline's steps, several hundred times, and each makes an argument parser: three
    fifths of the time that a pipeline takes to build (measured). Views share their values, so one of each kind is
    enough.
    """

    def view_as(self, cls: type[PipelineOptions]) -> Any:
        """These options as a view of some class."""
        views = self.__dict__.setdefault("_views", {})  # bypasses Beam's setting of attributes, which are options
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_views"}


def parse_beam_options(
    arguments: Sequence[str], runner_config: str | None = None, own_flags: Sequence[str] = ()
) -> PipelineOptions:
    """Beam's options from the rest of a command line, on top of those in a runner's file.

    Args:
        arguments: flags that the command does not know itself.
        runner_config: a YAML file, ``option: value``; options that may be given several times are joined with the
            command line's, which otherwise wins.
        own_flags: the command's flags, the likeliest meaning of a mistyped one.

    Raises:
        ConfigError: the file is not a mapping, Beam does not know a flag (which it would only log and drop), or a flag
            lacks its value.
    """
    flags: list[str] = []
    if runner_config is not None:
        flags = _read_flags(runner_config)
        _check_flags(flags, f"--runner-config {runner_config}", "an option of Beam")
    _check_flags(arguments, "command line", "a flag of the command or of Beam", own_flags)
    parsed = _KeptViews([*flags, *arguments])
    standard = parsed.view_as(StandardOptions)
    if standard.runner is None:
        standard.runner = DEFAULT_RUNNER
    return parsed


def _check_flags(arguments: Sequence[str], place: str, expected: str, own_flags: Sequence[str] = ()) -> None:
    parser = _BeamArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    known = [option for action in parser._actions for option in action.option_strings]
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"{place}: {error}") from error
    if unknown:
        raise ConfigError(place, expected, unknown[0], _hint(unknown[0], own_flags, known))


def _hint(unknown: str, own_flags: Sequence[str], beam_flags: Sequence[str]) -> str:
    """What a mistyped flag may be: one of the command's own before one of Beam's."""
    if not unknown.startswith("-") and "--input" in own_flags:
        return f"Did you mean --input {unknown}?"
    flag = unknown.split("=", maxsplit=1)[0]
    close = difflib.get_close_matches(flag, list(dict.fromkeys([*own_flags, *beam_flags])), n=3)
    likeness = {name: difflib.SequenceMatcher(None, flag, name).ratio() for name in close}
    likely = [name for name in close if likeness[name] >= likeness[close[0]] - _ABOUT_AS_CLOSE]
    if likely:  # among similar ones, the command's own comes first
        return f"Did you mean {next((name for name in likely if name in own_flags), likely[0])}?"
    return "See --help for maskdet's flags; Beam's are in its documentation."


def _read_flags(path: str) -> list[str]:
    try:
        tree = yaml.safe_load(find_config(path, RUNNERS, "--runner-config").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--runner-config {path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError("--runner-config", "Beam options as key: value", type(tree).__name__, f"Check {path}.")
    return [flag for name, value in tree.items() for flag in _flags(path, str(name), value)]


def _flags(path: str, name: str, value: Any) -> list[str]:
    """The flags of one entry: one per item of a list; a mapping becomes JSON."""
    if value is True:
        return [f"--{name}"]
    if value is None or value is False:
        # Beam has flags that turn something on and others that turn something off; false would mean neither.
        remedy = "Leave the option out, or set the one that turns it off (no_…) to true."
        raise ConfigError(f"--runner-config {path}: {name}", "a value", value, remedy)
    if isinstance(value, list):
        return [flag for item in value for flag in _flags(path, name, item)]
    return [f"--{name}={json.dumps(value) if isinstance(value, dict) else value}"]
