"""Show the tables of an output as Delta Lake tables, for readers that take those.

    maskdet delta tables/ [--store-option NAME=VALUE] [Beam options, for stores that need them]

Commits to each table's log which files joined and left it since the last time; no data is copied, and a table whose
files are the same gets no commit. Run it after every `maskdet score`: a run removes the files of the set before the
last one, and a log that is two runs behind names files that are gone. Summaries of runs and `maskdet status` remind of
it. Needs the extra `delta`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from maskdet.beam.options import RUNNER_CONFIG_HELP, parse_beam_options
from maskdet.cli import console
from maskdet.errors import ConfigError
from maskdet.tables.delta import commit_delta


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("delta", lambda: _delta(sys.argv[1:] if argv is None else argv))


def _delta(argv: Sequence[str]) -> int:
    parser = console.Parser("delta", __doc__)
    parser.add_argument("output", help="the output of scoring runs")
    parser.add_argument(
        "--store-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of delta-rs, such as AWS_REGION=eu-west-1",
    )
    parser.add_argument("--runner-config", help=RUNNER_CONFIG_HELP)
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, arguments.runner_config, parser.flags))
    options = dict(_pair(option) for option in arguments.store_option)
    for commit in commit_delta(arguments.output, options):
        changes = f"+{commit.files_added} −{commit.files_removed} files"
        print(f"{commit.table:<12} version {commit.version}: {changes}, {commit.uri}")
    return 0


def _pair(option: str) -> tuple[str, str]:
    name, found, value = option.partition("=")
    if not (name and found):
        raise ConfigError("--store-option", "NAME=VALUE", option, "For example AWS_REGION=eu-west-1.")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
