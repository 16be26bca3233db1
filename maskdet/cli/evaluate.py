"""Measure a model on labelled images.

    maskdet evaluate --input photos/ --output results/ [--model builtin] [--config configs/evaluate.yaml]
                     [--set section.key=value …] [Beam options, such as --runner=FlinkRunner]

Scores the images as `maskdet score` does, into <output>/scores, and compares the labels with the truth: by default the
nearest folder above an image that is named with_mask or without_mask (or WithMask, no_mask, …; see truth.mask and
truth.no_mask), or a manifest's column (--set truth.column=NAME). Annotated faces (--faces detect, --set
truth.boxes=FILE: COCO JSON, VOC XML or YOLO labels or a folder of either, a Parquet manifest) also tell how well faces
are found. Writes metrics.json, metrics.parquet, mistakes.parquet and report.html, with the curves of
<model>.history.csv if the training left it beside the bundle. A second run scores only what changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from apache_beam.options.pipeline_options import PipelineOptions

from maskdet import storage
from maskdet.cli import console, summary
from maskdet.cli.scoring_run import beam_options, command_parser, overrides, run_to_end
from maskdet.config import load_yaml
from maskdet.evaluation.annotation_matching import read_annotations
from maskdet.evaluation.detection_matching import join_annotations
from maskdet.evaluation.results import Evaluation, evaluate, write_results
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.training_history import find_history, read_history
from maskdet.evaluation.truth import check_columns, read_labelled, read_tables
from maskdet.report.evaluation_page import REPORT_FILE, describe, render
from maskdet.scoring.setup import check_run
from maskdet.tables.layout import Layout


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("evaluate", lambda: _evaluate(sys.argv[1:] if argv is None else argv))


def _evaluate(argv: Sequence[str]) -> int:
    arguments, rest = command_parser("evaluate", __doc__).parse_known_args(argv)
    options = beam_options(arguments, rest)
    settings = load_yaml(EvaluateSettings, arguments.config, overrides(arguments))
    evaluation = run_evaluation(
        settings, options, overwrite=arguments.overwrite, quiet=arguments.quiet, wait_s=arguments.wait
    )
    print(summary.describe_run(evaluation.run, Layout(storage.normalize(settings.score_settings().output))))
    print(describe(evaluation, storage.normalize(settings.output)))
    return 0


def run_evaluation(
    settings: EvaluateSettings,
    options: PipelineOptions,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    wait_s: float = 0.0,
) -> Evaluation:
    """Check the settings, score what is not scored yet, measure, and write the results.

    Raises:
        MaskdetError: anything a caller can get wrong, or a run that did not succeed.
    """
    launch = check_run(settings.score_settings(), datetime.now(UTC))
    check_columns(settings, launch.tasks)
    annotations = None if settings.truth.boxes is None else read_annotations(settings.truth)
    history = read_history(uri) if (uri := find_history(settings)) else None
    run = run_to_end(launch, options, overwrite=overwrite, quiet=quiet, wait_s=wait_s, one_input=True)
    if error := run.outcome():
        raise error
    layout, annotated = launch.plan.layout, None
    if annotations is None:
        labelled = read_labelled(layout, settings, launch.tasks)
    else:
        tables = read_tables(layout, settings, launch.tasks)
        annotated = join_annotations(annotations, tables, settings, run.model["id"])
        labelled = annotated.labelled()
    evaluation = evaluate(labelled, run, settings, annotated)
    root = storage.normalize(settings.output)
    write_results(root, evaluation, settings, render(evaluation, settings, history), REPORT_FILE)
    return evaluation


if __name__ == "__main__":
    sys.exit(main())
