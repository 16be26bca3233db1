"""Remove the rows of images that were taken before a day.

    maskdet prune tables/ --before 2026-01-01 [--dry-run] [--wait [SECONDS]] [Beam options, for stores that need them]

Afterwards predictions, failures, images without a face and all compliance counts cover the rest, as one change. Days
are those of the data set's time zone. Images without a capture time stay. A later run over an input that still has the
photographs adds them again: delete those first.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import RUNNER_CONFIG_HELP, parse_beam_options
from maskdet.cli import console, summary
from maskdet.errors import ConfigError
from maskdet.tables.layout import Layout
from maskdet.tables.prune import count_older, prune
from maskdet.tables.snapshot import current_snapshot


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("prune", lambda: _prune(sys.argv[1:] if argv is None else argv))


def _prune(argv: Sequence[str]) -> int:
    parser = console.Parser("prune", __doc__)
    parser.add_argument("output", help="the output of scoring runs")
    parser.add_argument("--before", required=True, metavar="DAY", help="a day as 2026-01-31; images of that day stay")
    parser.add_argument("--dry-run", action="store_true", help="print how many images it would be; change nothing")
    parser.add_argument(
        "--wait", type=float, default=0.0, nargs="?", const=math.inf, metavar="SECONDS", help="as of maskdet score"
    )
    parser.add_argument("--runner-config", help=RUNNER_CONFIG_HELP)
    arguments, rest = parser.parse_known_args(argv)
    before = _day(arguments.before)
    FileSystems.set_options(parse_beam_options(rest, arguments.runner_config, parser.flags))
    layout = Layout(storage.normalize(arguments.output))
    snapshot = storage.within_deadline(lambda: current_snapshot(layout), layout.root)
    if arguments.dry_run:
        older, undated = count_older(layout, snapshot, before)
        total = sum(shard.images for shard in snapshot.shards)
        print(f"dry run: {older:,} of {total:,} images were taken before {before}; {undated:,} have no capture time")
        return 0
    run = prune(layout, before, datetime.now(UTC), wait_s=arguments.wait)
    print(summary.describe_output(run, layout))
    if error := run.outcome():
        raise error
    return 0


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError("--before", "a day as 2026-01-31", text, "Check the calendar.") from error


if __name__ == "__main__":
    sys.exit(main())
