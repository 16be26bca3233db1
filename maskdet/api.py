"""The public API: score images, evaluate a model, predict single images, find faces.

The command line is built on the same functions. A caller's mistake raises a
:class:`maskdet.errors.MaskdetError`, whose text says what was expected, what was received, and what to do; a broken
image never raises, but gets a row in the failures, or a fault in its prediction.

    >>> import maskdet
    >>> from maskdet.demo.faces import DEMO_TEMPLATE, write_demo_tree
    >>> tree = write_demo_tree("demo", sites=1, cameras_per_site=1, days=1, hours=(8,), images_per_hour=6)
    >>> result = maskdet.score(
    ...     input="demo",
    ...     output="tables",
    ...     faces="whole",
    ...     template=DEMO_TEMPLATE,
    ...     compliance={"levels": {"day": ["site", "date"]}},
    ...     failure_budget={"max_ratio": 1.0},
    ... )
    >>> result.run.status
    'succeeded'
    >>> images = result.run.images
    >>> images.listed == images.scored + images.no_face + images.failed + images.skipped
    True
    >>> result.predictions().num_rows == images.scored
    True
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.beam.running import run_to_end
from maskdet.config import FacesSettings, ScoreSettings, load_settings
from maskdet.cores import available_cores
from maskdet.inputs.sharding import KeyRule
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema
from maskdet.scoring.predicting import (
    Face,
    FaceFinder,
    FaceModel,
    FacePrediction,
    ImageLike,
    ImagePrediction,
    load_face_model,
)
from maskdet.scoring.setup import check_run
from maskdet.tables.layout import FAILURES, NO_FACE, PREDICTIONS, Layout, read_table
from maskdet.tables.reading import read_rows
from maskdet.tables.runs import RunRecord

if TYPE_CHECKING:  # imported when an evaluation begins, so that scoring starts without it
    from maskdet.evaluation.results import Evaluation
    from maskdet.evaluation.settings import EvaluateSettings

__all__ = [
    "Face",
    "FaceModel",
    "FacePrediction",
    "ImageLike",
    "ImagePrediction",
    "ScoreResult",
    "evaluate",
    "find_faces",
    "open_model",
    "score",
]

Location: TypeAlias = str | os.PathLike[str]
BeamOptions: TypeAlias = PipelineOptions | Sequence[str]

SHORT_NAMES = {
    "model": "model.uri",
    "backend": "model.backend",
    "precision": "model.precision",
    "faces": "faces.mode",
    "template": "source.template",
}
"""Settings with a short name, on the command line and here."""


@dataclass(frozen=True)
class ScoreResult:
    """A finished scoring run and its tables.

    Attributes:
        run: the run's record: counts of images and faces, model, versions, timings.
        settings: its settings.
    """

    run: RunRecord
    settings: ScoreSettings

    @property
    def layout(self) -> Layout:
        """Where the files of the output are."""
        return Layout(storage.normalize(self.settings.output))

    def predictions(self) -> pa.Table:
        """One row per face, of all runs over the output."""
        return read_rows(self.layout, PREDICTIONS, predictions_schema(KeyRule.of(self.settings).all_names))

    def failures(self) -> pa.Table:
        """One row per image that could not be scored."""
        return read_rows(self.layout, FAILURES, failures_schema(KeyRule.of(self.settings).all_names))

    def no_face(self) -> pa.Table:
        """One row per image in which no face was found."""
        return read_rows(self.layout, NO_FACE, no_face_schema(KeyRule.of(self.settings).all_names))

    def compliance(self, level: str = "all") -> pa.Table:
        """One row per group of a level of ``compliance.levels``; ``all`` is the whole input."""
        return read_table(self.layout.compliance(level))


def score(
    input: Location | Sequence[Location],
    output: Location,
    *,
    config: Location | None = None,
    overwrite: bool = False,
    wait_s: float = 0.0,
    beam_options: BeamOptions = (),
    runner_config: str | None = None,
    **settings: Any,
) -> ScoreResult:
    """Score images, as ``maskdet score`` does; what is finished in the output is not scored again.

    Args:
        input: folders, globs, list files (.txt) or image lists (.csv, .parquet), on any storage.
        output: folder or prefix of the tables.
        config: a YAML file of settings, or the name of one that comes with the package, such as ``"demo"``.
        overwrite: replace tables of another input or layout.
        wait_s: how long to wait for another run that writes the output, in seconds.
        beam_options: flags of Beam, such as ``["--runner=FlinkRunner"]``.
        runner_config: a YAML file of Beam options, or the name of one that comes with the package.
        **settings: sections of :class:`maskdet.config.ScoreSettings`, over the config: ``faces={"min_face_px": 32}``.
            ``model``, ``backend``, ``precision``, ``faces`` and ``template`` may be given as on the command line:
            ``faces="whole"``.

    Raises:
        MaskdetError: anything a caller can get wrong, or a run that did not succeed.
    """
    tree = settings_tree({"input": input, "output": output, **settings})
    options = beam_options_of(beam_options, runner_config)
    result = run_score(load_settings(ScoreSettings, config, tree), options, overwrite=overwrite, wait_s=wait_s)
    if error := result.run.outcome():
        raise error
    return result


def evaluate(
    input: Location | Sequence[Location],
    output: Location,
    *,
    config: Location | None = None,
    overwrite: bool = False,
    wait_s: float = 0.0,
    beam_options: BeamOptions = (),
    runner_config: str | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure a model on labelled images, as ``maskdet evaluate`` does, and write figures and page to the output.

    Args:
        input: as of :func:`score`; by default the folder above an image names its class.
        output: folder or prefix of the results; the scores are in its folder ``scores``.
        config: as of :func:`score`.
        overwrite: as of :func:`score`.
        wait_s: as of :func:`score`.
        beam_options: as of :func:`score`.
        runner_config: as of :func:`score`.
        **settings: sections of :class:`maskdet.evaluation.settings.EvaluateSettings`; short names as of :func:`score`.

    Returns:
        Every figure with its interval: ``evaluation.overall["balanced_accuracy"].value``.

    Raises:
        MaskdetError: anything a caller can get wrong, or a run that did not succeed.
    """
    from maskdet.evaluation.settings import EvaluateSettings

    tree = settings_tree({"input": input, "output": output, **settings})
    options = beam_options_of(beam_options, runner_config)
    return run_evaluation(load_settings(EvaluateSettings, config, tree), options, overwrite=overwrite, wait_s=wait_s)


def open_model(uri: Location = "builtin", **settings: Any) -> FaceModel:
    """Load a model to predict single images.

        >>> import numpy as np
        >>> from maskdet.demo.drawing import draw_face
        >>> model = open_model("builtin", faces="whole")
        >>> face = draw_face(np.random.default_rng(7), 128, masked=True)
        >>> [prediction] = model.predict([face])
        >>> prediction.labels
        ('mask',)
        >>> round(sum(prediction.faces[0].probabilities.values()), 6)
        1.0
        >>> [broken] = model.predict([b"no image"])
        >>> broken.fault.code.value
        'not_an_image'

    Args:
        uri: a model bundle in any storage, or ``"builtin"``.
        **settings: as of :func:`score`: ``faces="detect"`` finds the faces of each image, ``"whole"`` treats an image
            as one face; sections ``faces``, ``imaging``, ``model`` and ``scoring`` hold the rest.

    Raises:
        MaskdetError: a setting is wrong, or the bundle is missing, damaged, or does not reproduce its golden outputs.
    """
    tree = settings_tree(settings)
    tree["model"] = {**tree.get("model", {}), "uri": os.fspath(uri)}
    return load_face_model(load_settings(ScoreSettings, None, tree))


def find_faces(image: ImageLike, **faces: Any) -> list[Face]:
    """Find the faces in an image, as scoring does.

        >>> import numpy as np
        >>> find_faces(np.full((120, 160, 3), 200, np.uint8))
        []

    Args:
        image: pixels, a Pillow image, a path, a URI, or the bytes of a file.
        **faces: of :class:`maskdet.config.FacesSettings`: ``min_face_px``, ``min_score``, ``max_faces``.

    Returns:
        Boxes in pixels of the upright image, with scores, the surest first.

    Raises:
        ImageFault: the image cannot be decoded.
        MaskdetError: a setting is wrong, or the image cannot be read.
    """
    return _finder(load_settings(FacesSettings, None, faces)).find(image)


def run_score(
    settings: ScoreSettings,
    options: PipelineOptions,
    *,
    overwrite: bool = False,
    wait_s: float = 0.0,
    shown: AbstractContextManager[None] | None = None,
) -> ScoreResult:
    """Check the settings and score what is not scored yet.

    Args:
        settings: the run's.
        options: Beam's; storage uses them too.
        overwrite: replace tables of another input or layout.
        wait_s: how long to wait for another run that writes the output, in seconds.
        shown: shows the progress while the pipeline runs.

    Returns:
        The run, whether it succeeded or not: its ``outcome()`` says.

    Raises:
        MaskdetError: anything a caller can get wrong.
        KeyboardInterrupt: as of :func:`maskdet.beam.running.run_to_end`.
    """
    FileSystems.set_options(options)
    launch = check_run(settings, datetime.now(UTC))
    run = run_to_end(launch, options, overwrite=overwrite, wait_s=wait_s, shown=shown)
    return ScoreResult(run, launch.settings)


def run_evaluation(
    settings: EvaluateSettings,
    options: PipelineOptions,
    *,
    overwrite: bool = False,
    wait_s: float = 0.0,
    shown: AbstractContextManager[None] | None = None,
) -> Evaluation:
    """Check the settings, score what is not scored yet, measure, and write the results.

    Args:
        settings: the evaluation's.
        options: as of :func:`run_score`.
        overwrite: as of :func:`run_score`.
        wait_s: as of :func:`run_score`.
        shown: as of :func:`run_score`.

    Raises:
        MaskdetError: anything a caller can get wrong, or a run that did not succeed.
        KeyboardInterrupt: as of :func:`maskdet.beam.running.run_to_end`.
    """
    from maskdet.evaluation import baselines
    from maskdet.evaluation.annotation_matching import read_annotations
    from maskdet.evaluation.detection_matching import join_annotations
    from maskdet.evaluation.results import evaluate as measure
    from maskdet.evaluation.results import write_results
    from maskdet.evaluation.training_history import find_history, read_history
    from maskdet.evaluation.truth import check_columns, read_labelled, read_tables
    from maskdet.model.training_images import read_training_images
    from maskdet.report.evaluation_page import REPORT_FILE, render

    FileSystems.set_options(options)
    launch = check_run(settings.score_settings(), datetime.now(UTC))
    check_columns(settings, launch.tasks)
    if settings.baselines:
        baselines.check_installed()
    annotations = None if settings.truth.boxes is None else read_annotations(settings.truth)
    history = read_history(uri) if (uri := find_history(settings)) else None
    training_images = read_training_images(settings.model.uri)
    run = run_to_end(launch, options, overwrite=overwrite, wait_s=wait_s, shown=shown, one_input=True)
    if error := run.outcome():
        raise error
    layout, annotated = launch.plan.layout, None
    if annotations is None:
        labelled = read_labelled(layout, settings, launch.tasks)
    else:
        tables = read_tables(layout, settings, launch.tasks)
        annotated = join_annotations(annotations, tables, settings, run.model["id"])
        labelled = annotated.labelled()
    evaluation = measure(labelled, run, settings, annotated, training_images)
    root = storage.normalize(settings.output)
    write_results(root, evaluation, settings, render(evaluation, settings, history), REPORT_FILE)
    return evaluation


def settings_tree(given: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of settings from keyword arguments, with short names resolved and locations as text."""
    tree: dict[str, Any] = {}
    for name, value in given.items():
        section, _, key = SHORT_NAMES.get(name, "").partition(".")
        if key and not isinstance(value, Mapping):
            tree.setdefault(section, {})[key] = _as_text(value)
        elif isinstance(value, Mapping):
            tree.setdefault(name, {}).update(value)
        else:
            tree[name] = [_as_text(item) for item in value] if isinstance(value, list | tuple) else _as_text(value)
    return tree


def beam_options_of(options: BeamOptions, runner_config: str | None) -> PipelineOptions:
    """Beam's options from flags and a runner's file; options that are given as an object are used unchanged.

    Raises:
        ConfigError: as :func:`maskdet.beam.options.parse_beam_options`.
    """
    return options if isinstance(options, PipelineOptions) else parse_beam_options(options, runner_config)


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@functools.lru_cache(maxsize=4)
def _finder(faces: FacesSettings) -> FaceFinder:
    return FaceFinder(faces, available_cores())
