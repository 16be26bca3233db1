"""The PTransform that opens videos and cuts them into segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection, TaggedOutput

from maskdet.beam.progress import PROGRESS
from maskdet.inputs import listing, videos
from maskdet.inputs.columns import has_segments
from maskdet.inputs.references import RefBatch
from maskdet.inputs.sharding import KeyRule
from maskdet.sections import VideoSettings

BATCHES, COUNTS = "batches", "counts"
_VIDEOS = "videos"
_VIDEOS_A_BATCH = 32


@dataclass
class CutVideos(beam.PTransform):  # type: ignore[misc]
    """:class:`RefBatch` → (:class:`RefBatch` with segments in the place of videos, counts of both)."""

    settings: VideoSettings
    rule: KeyRule
    decoder_seconds: float | None = None

    def expand(self, batches: PCollection[Any]) -> Any:
        """Apply the transform."""
        split = batches | "SplitVideos" >> beam.FlatMap(_split_videos).with_outputs(_VIDEOS, main=BATCHES)
        cut = (
            split[_VIDEOS]
            | "SpreadVideos" >> beam.Reshuffle()
            | "OpenVideos"
            >> beam.FlatMap(_cut_videos, self.settings, self.rule, self.decoder_seconds).with_outputs(
                COUNTS, main=BATCHES
            )
        )
        batches = (split[BATCHES], cut[BATCHES]) | "JoinSegments" >> beam.Flatten()
        return {BATCHES: batches, COUNTS: cut[COUNTS]}


def _split_videos(batch: RefBatch) -> Iterator[Any]:
    """Images unchanged; videos a few at a time, since opening one takes as long as listing a thousand images."""
    if not has_segments(batch.columns):
        yield batch
        return
    found = [ref for ref in batch.refs if ref.segment is not None]
    yield RefBatch(tuple(ref for ref in batch.refs if ref.segment is None))
    for start in range(0, len(found), _VIDEOS_A_BATCH):
        yield TaggedOutput(_VIDEOS, RefBatch(tuple(found[start : start + _VIDEOS_A_BATCH])))


def _cut_videos(
    batch: RefBatch, settings: VideoSettings, rule: KeyRule, decoder_seconds: float | None
) -> Iterator[Any]:
    refs, counts = videos.cut_videos(batch, settings, rule, decoder_seconds)
    if counts:
        PROGRESS.add_listed(counts[videos.SEGMENTS] - counts[videos.VIDEOS])
        yield TaggedOutput(COUNTS, counts)
    yield from listing.batched(refs, RefBatch)
