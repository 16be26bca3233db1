"""Measure a model on labelled images.

    maskdet evaluate --input photos/ --output results/ [--model builtin] [--config my.yaml]
                     [--set section.key=value …] [Beam options, such as --runner=FlinkRunner]

Scores the images as `maskdet score` does, into <output>/scores, and compares the labels with the truth. By default
the truth is the nearest folder above an image that is named with_mask or without_mask (or WithMask, no_mask, …; see
truth.mask and truth.no_mask). It can also be a column of an image list (--set truth.column=NAME). Annotated faces
(--faces detect --set truth.boxes=FILE: COCO JSON, VOC XML, YOLO labels or a Parquet file) also tell how well faces are
found. Writes metrics.json, metrics.parquet, mistakes.parquet and report.html. The page shows the curves of the
training if <model>.history.csv lies beside the bundle. A second run scores only what changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from maskdet import storage
from maskdet.api import run_evaluation
from maskdet.beam.progress import PROGRESS
from maskdet.cli import console, summary
from maskdet.cli.scoring_run import beam_options, command_parser, overrides
from maskdet.config import load_yaml
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.report.evaluation_page import describe
from maskdet.tables.layout import Layout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("evaluate", lambda: _evaluate(sys.argv[1:] if argv is None else argv))


def _evaluate(argv: Sequence[str]) -> int:
    parser = command_parser("evaluate", __doc__)
    arguments, rest = parser.parse_known_args(argv)
    options = beam_options(arguments, rest, parser.flags)
    settings = load_yaml(EvaluateSettings, arguments.config, overrides(arguments))
    shown = console.show_progress(PROGRESS, quiet=arguments.quiet)
    overwrite, wait_s = arguments.overwrite, arguments.wait
    evaluation = run_evaluation(settings, options, overwrite=overwrite, wait_s=wait_s, shown=shown)
    print(summary.describe_run(evaluation.run, Layout(storage.normalize(settings.score_settings().output))))
    print(describe(evaluation, storage.normalize(settings.output)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
