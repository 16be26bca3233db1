"""Compare models side by side on several sets of images, and with shortcuts that do not look at faces.

    python -m tools.compare --config tools/configs/compare.yaml --output build/compare [--card MODEL_CARD.md]
                    [--set section.key=value …] [Beam options, such as --runner=FlinkRunner]

Evaluates every model on every data set, as `maskdet evaluate` does, into <output>/<model>/<data>; says how each set's
images relate to the model's training; and measures models on faces made smaller, larger and blurred. Writes compare.md,
compare.json, compare.parquet and robustness.parquet. --card copies compare.md into a file, between the lines
`<!-- compare: begin -->` and `<!-- compare: end -->`. A second run evaluates only what has changed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet import storage
from maskdet.api import run_evaluation
from maskdet.beam.options import parse_beam_options
from maskdet.beam.progress import PROGRESS
from maskdet.cli import console
from maskdet.config import load_yaml
from maskdet.errors import ConfigError
from maskdet.scoring.setup import check_run
from tools.comparison import cases
from tools.comparison.robust_models import run_robustness
from tools.comparison.settings import CompareSettings
from tools.comparison.tables import COMPARE_TEXT, join_rows, write_comparison
from tools.comparison.text import check_marks, describe_rows, render_text, replace_between_marks


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("compare", lambda: _compare(sys.argv[1:] if argv is None else argv))


def _compare(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    options = parse_beam_options(rest, own_flags=parser.flags)
    FileSystems.set_options(options)
    given = [f"output={json.dumps(arguments.output)}"] if arguments.output is not None else []  # JSON is YAML
    settings = load_yaml(CompareSettings, arguments.config, [*given, *arguments.set])
    if not settings.output:
        raise ConfigError("--output", "a folder or prefix", "nothing", "Say where to write the results.")
    if arguments.card:
        check_marks(_read_text(arguments.card), arguments.card)
    planned = cases.plan_cases(settings)
    for number, case in enumerate(planned, start=1):
        done = "not made here" if case.settings is None else _make(case, options, arguments)
        print(f"{number} of {len(planned)}: {case.model} on {case.data}: {done}", flush=True)
    rows, robustness = join_rows(settings, planned), run_robustness(settings)
    command = shlex.join(
        ["python", "-m", "tools.compare", *(word for word in argv if word not in ("--quiet", "--overwrite"))]
    )
    text = render_text(settings, rows, robustness, command)
    write_comparison(settings, rows, robustness, text)
    if arguments.card:
        document = replace_between_marks(_read_text(arguments.card), text, arguments.card)
        storage.write_bytes(arguments.card, document.encode())
    print(f"{describe_rows(rows)}\n  text    {storage.join(storage.normalize(settings.output), COMPARE_TEXT)}")
    return 0


def _make(case: cases.Case, options: PipelineOptions, arguments: argparse.Namespace) -> str:
    cases.write_inputs(case)
    settings = cases.made(case)
    launch = check_run(settings.score_settings(), datetime.now(UTC))
    key = cases.finished_key(case, launch.plan.record.fingerprint)
    if cases.is_finished(case, key):
        return "kept"
    cases.mark_finished(case, None)
    shown = console.show_progress(PROGRESS, quiet=arguments.quiet)
    run_evaluation(settings, options, overwrite=arguments.overwrite, shown=shown)
    cases.mark_finished(case, key)
    return "evaluated"


def _read_text(uri: str) -> str:
    return storage.read_bytes(uri).decode("utf-8")


def _parser() -> console.Parser:
    parser = console.Parser("python -m tools.compare", __doc__)
    parser.add_argument(
        "--config", required=True, help="a YAML file of models and data; see tools/configs/compare.yaml"
    )
    parser.add_argument("--output", help="folder or prefix for evaluations and tables")
    parser.add_argument("--card", metavar="FILE", help="a Markdown file to copy the tables into, between its two marks")
    console.add_set_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace tables of another input")
    parser.add_argument("--quiet", action="store_true", help="log an occasional line instead of showing live progress")
    return parser


if __name__ == "__main__":
    sys.exit(main())
