"""The PTransform that makes tracks from the rows of videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from maskdet.beam.compliance import key_by_level
from maskdet.compliance.state import GroupKey
from maskdet.compliance.track_rates import TrackCounts, merge_tracks
from maskdet.tables.receipts import ShardReport
from maskdet.tables.tracks import TrackJob, TracksFile, TracksTotal

FILES, RATES = "files", "rates"


@dataclass
class TrackVideos(beam.PTransform):  # type: ignore[misc]
    """:class:`ShardReport` → (``(name, SHA-256)`` of each file of tracks, ``(level, TracksTotal)`` of their rates)."""

    job: TrackJob

    def expand(self, reports: PCollection[Any]) -> Any:
        """Apply the transform."""
        files = (
            reports
            | "ReadRows" >> beam.FlatMap(_rows_of, self.job).with_output_types(tuple[str, bytes])
            | "GroupVideos" >> beam.GroupByKey()
            | "WriteTracks" >> beam.FlatMap(_write, self.job).with_output_types(tuple[str, Any])
        )
        rates = (
            files
            | "ReadGroups" >> beam.FlatMap(_groups_of).with_output_types(tuple[str, Any])
            | "MergeGroups" >> beam.CombinePerKey(merge_tracks)
            | "KeyByLevel" >> beam.Map(key_by_level, self.job.needs_all).with_output_types(tuple[str, Any])
            | "GroupByLevel" >> beam.GroupByKey()
            | "WriteRates" >> beam.FlatMap(_write_rates, self.job).with_output_types(tuple[str, Any])
        )
        return {FILES: files | "NameFiles" >> beam.Map(_named).with_output_types(tuple[str, str]), RATES: rates}


def _rows_of(report: ShardReport, job: TrackJob) -> Iterator[tuple[str, bytes]]:
    yield from job.rows_of(report.receipt)


def _write(group: tuple[str, Iterable[bytes]], job: TrackJob) -> Iterator[tuple[str, TracksFile]]:
    written = job.write(*group)
    if written is not None:
        yield group[0], written


def _groups_of(file: tuple[str, TracksFile]) -> list[tuple[str, TrackCounts]]:
    return [(key.encode(), counts) for key, counts in file[1].groups.items()]


def _write_rates(
    group: tuple[str, Iterable[tuple[GroupKey, TrackCounts]]], job: TrackJob
) -> Iterable[tuple[str, TracksTotal]]:
    return job.write_rates(dict(group[1])).items()


def _named(file: tuple[str, TracksFile]) -> tuple[str, str]:
    return file[0], file[1].sha256
