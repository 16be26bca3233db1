"""Beam options on the command line: the default runner, and a clear error for what Beam does not know."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, _BeamArgumentParser

from maskdet.errors import ConfigError

# DirectRunner would first look for the Prism runner, a binary it wants to download.
DEFAULT_RUNNER = "FnApiRunner"


def parse_beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from what is left of a command line.

    Args:
        arguments: flags that the command does not know itself.

    Raises:
        ConfigError: Beam does not know a flag either (Beam itself would only log and drop it), or it lacks its value.
    """
    parser = _BeamArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    known = [option for action in parser._actions for option in action.option_strings]
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"command line: {error}") from error
    if unknown:
        close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        hint = (
            f"Did you mean {close[0]}?" if close else "See --help for maskdet's flags; Beam's are in its documentation."
        )
        raise ConfigError("command line", "a flag of the command or of Beam", unknown[0], hint)
    parsed = PipelineOptions(list(arguments))
    standard = parsed.view_as(StandardOptions)
    if standard.runner is None:
        standard.runner = DEFAULT_RUNNER
    return parsed
