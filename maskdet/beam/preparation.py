"""The PTransforms of a preparation: thin dataclasses that map the package's functions over Beam's collections.

Elements are few and large: batches of references, then Arrow tables. Whatever is annotated ``Any`` here is a type of
:mod:`maskdet.preparation.records`; naming it would make Beam look for a row schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsIter, PCollection, TaggedOutput

from maskdet.beam.progress import PROGRESS
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs import listing
from maskdet.preparation import writing
from maskdet.preparation.launch import SourceTask
from maskdet.preparation.measuring import measure_batch
from maskdet.preparation.records import MeasuredBatch, SourceBatch
from maskdet.preparation.report import PrepareReport
from maskdet.preparation.settings import PrepareSettings

_COUNTS = "counts"
# Large enough for threads, small enough to spread over workers.
_BATCH_IMAGES = 500


@dataclass
class ListSources(beam.PTransform):  # type: ignore[misc]
    """``None`` root → (:class:`SourceBatch`, counts of files listed and skipped)."""

    settings: PrepareSettings
    tasks: Sequence[SourceTask]

    def expand(self, root: Any) -> Any:
        """Apply the transform."""
        return (
            root
            | "CreateTasks" >> beam.Create(list(self.tasks))
            | "SplitTasks" >> beam.FlatMap(_split_task).with_output_types(Any)
            | "SpreadTasks" >> beam.Reshuffle()
            | "ListTasks" >> beam.FlatMap(_list_task, self.settings).with_outputs(_COUNTS, main="batches")
        )


@dataclass
class MeasureImages(beam.PTransform):  # type: ignore[misc]
    """:class:`SourceBatch` → :class:`MeasuredBatch`."""

    settings: PrepareSettings

    def expand(self, batches: PCollection[Any]) -> PCollection[Any]:
        """Apply the transform."""
        return (
            batches
            | "SpreadBatches" >> beam.Reshuffle()
            | "MeasureBatch" >> beam.Map(_measure, self.settings).with_output_types(Any)
        )


@dataclass
class Prepare(beam.PTransform):  # type: ignore[misc]
    """``None`` root → :class:`PrepareReport`: a whole preparation.

    Duplicates and groups can join any two images, so one worker finishes it, with about 1 kB per image in memory.
    """

    settings: PrepareSettings
    tasks: Sequence[SourceTask]

    def expand(self, root: Any) -> PCollection[Any]:
        """Apply the transform."""
        listed = root | "ListSources" >> ListSources(self.settings, self.tasks)
        measured = listed["batches"] | "MeasureImages" >> MeasureImages(self.settings)
        return (
            root
            | "CreateOne" >> beam.Create([None])
            | "FinishPreparation"
            >> beam.Map(_finish, self.settings, AsIter(measured), AsIter(listed[_COUNTS])).with_output_types(Any)
        )


def _split_task(task: SourceTask) -> list[SourceTask]:
    return [SourceTask(task.source, part) for part in listing.split_task(task.task)]


def _list_task(task: SourceTask, settings: PrepareSettings) -> Iterator[Any]:
    for found in listing.list_images(task.task, settings.sources[task.source].listing):
        PROGRESS.add_listed(len(found.refs))
        yield TaggedOutput(_COUNTS, {"listed": found.listed, **found.skipped})
        for start in range(0, len(found.refs), _BATCH_IMAGES):
            yield SourceBatch(task.source, task.task.root, found.refs[start : start + _BATCH_IMAGES])


def _measure(batch: SourceBatch, settings: PrepareSettings) -> MeasuredBatch:
    measured = measure_batch(batch, settings.sources[batch.source], ImageLimits.of(settings.imaging))
    PROGRESS.add_done(len(batch.refs))
    PROGRESS.add_failed(measured.failures.num_rows)
    return measured


def _finish(
    _: None, settings: PrepareSettings, measured: Iterable[MeasuredBatch], counts: Iterable[dict[str, int]]
) -> PrepareReport:
    return writing.finish(settings, measured, listing.merge_counts(counts))
