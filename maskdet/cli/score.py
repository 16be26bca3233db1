"""Find the faces in images, and tell which wear a mask.

    maskdet score --input photos/ --output tables/ [--model builtin] [--config my.yaml]
                  [--set section.key=value …] [--runner-config dataflow]
                  [Beam options, such as --runner=FlinkRunner]

Reads images from folders, globs, list files or image lists (CSV, Parquet), in any storage that Beam knows. Writes
tables of predictions, failures and compliance as Parquet, and a record of the run. A second run over the same output
scores only what is missing or changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from maskdet.api import run_score
from maskdet.beam import jobs
from maskdet.beam.progress import PROGRESS
from maskdet.cli import console, summary
from maskdet.cli.scoring_run import beam_options, command_parser, overrides
from maskdet.config import ScoreSettings, load_yaml
from maskdet.scoring.dry_run import plan_run
from maskdet.scoring.setup import check_run
from maskdet.tables.runs import claim_output


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("score", lambda: _score(sys.argv[1:] if argv is None else argv))


def _score(argv: Sequence[str]) -> int:
    parser = command_parser("score", __doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what would be scored and the settings, then stop")
    arguments, rest = parser.parse_known_args(argv)
    options = beam_options(arguments, rest, parser.flags)
    settings = load_yaml(ScoreSettings, arguments.config, overrides(arguments))
    if arguments.dry_run:
        launch = check_run(settings, datetime.now(UTC))
        launch = launch.adding_to(*claim_output(launch.plan, overwrite=arguments.overwrite))  # which touches nothing
        print(summary.describe_plan(launch.settings, plan_run(launch)))
        return 0
    shown = console.show_progress(PROGRESS, quiet=arguments.quiet)
    result = run_score(settings, options, overwrite=arguments.overwrite, wait_s=arguments.wait, shown=shown)
    run, root = result.run, result.layout.root
    if jobs.is_template_launch(options):
        print(f"run {run.run_id}: the job is written. To see how far it is: maskdet status {root}")
        return 0
    print(summary.describe_output(run, result.layout))
    if error := run.outcome():
        raise error
    return 0


if __name__ == "__main__":
    sys.exit(main())
