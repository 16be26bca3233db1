"""What the commands that score share: their flags, and the settings and Beam options that follow from them."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet.beam.options import RUNNER_CONFIG_HELP, parse_beam_options
from maskdet.cli import console

# Flags that are settings: flag → where its value goes, and what it means.
_SETTING_FLAGS = {
    "--input": ("input", "folders, globs, list files (.txt) or image lists (.csv, .parquet)"),
    "--output": ("output", "folder or prefix for the tables"),
    "--model": ("model.uri", "a model bundle, or 'builtin' (default)"),
    "--backend": (
        "model.backend",
        "litert, tensorflow, onnx, or auto: the fastest here (default: litert, or what the model has a file for)",
    ),
    "--precision": ("model.precision", "int8 or float32 (default: int8 where backend and model have it)"),
    "--faces": (
        "faces.mode",
        "detect: find the faces; whole: each image is one face; auto (default): what suits the model",
    ),
    "--template": ("source.template", "path template, such as {site}/{captured_at:%%Y-%%m-%%d}/*.jpg"),
}


def command_parser(command: str, description: str | None) -> console.Parser:
    """A parser with the flags of every command that scores."""
    parser = console.Parser(command, description)
    for flag, (key, text) in _SETTING_FLAGS.items():
        parser.add_argument(flag, dest=key, nargs="+" if flag == "--input" else None, help=text)
    parser.add_argument(
        "--config", help=f"settings: a YAML file, or a name such as demo; see maskdet config show {command}"
    )
    console.add_set_flag(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="replace tables that were made from another input or with other keys"
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        nargs="?",
        const=math.inf,
        metavar="SECONDS",
        help="wait for another run that is writing the output, at most so long; default: do not start",
    )
    parser.add_argument("--quiet", action="store_true", help="log a line now and then instead of showing live progress")
    parser.add_argument("--json-logs", action="store_true", help="log in JSON, with a line for each finished shard")
    parser.add_argument("--runner-config", help=RUNNER_CONFIG_HELP)
    return parser


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The flags given, in the form of ``--set``, followed by those of ``--set`` itself."""
    values = [(key, vars(arguments)[key]) for key, _ in _SETTING_FLAGS.values()]
    given = [f"{key}={json.dumps(value)}" for key, value in values if value is not None]  # JSON is YAML
    return [*given, *arguments.set]


def beam_options(arguments: argparse.Namespace, rest: Sequence[str], own_flags: Sequence[str] = ()) -> PipelineOptions:
    """Beam's options, which storage uses from now on, and the kind of log lines that was asked for."""
    if arguments.json_logs:
        console.log_json()
    options = parse_beam_options(rest, arguments.runner_config, own_flags)
    FileSystems.set_options(options)
    return options
