"""The tables of tracks, made anew at the end of each run from the rows of its videos and nothing else.

A video's rows may be in the files of several shards. They are brought together by the first two digits of a hash of its
URI, which is also the name of the file with its tracks, so a file's content does not depend on shards or workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from maskdet.compliance.state import GroupKey
from maskdet.compliance.table import Disclosure, key_union
from maskdet.compliance.track_rates import (
    TrackCounts,
    count_tracks,
    hide_track_groups,
    merge_tracks,
    track_rates_table,
)
from maskdet.errors import OutputError
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import ClassNames, Decision
from maskdet.schemas import conform, predictions_schema, tracks_schema
from maskdet.sections import PrivacySettings, TrackSettings
from maskdet.tables.layout import PREDICTIONS, TRACK_RATES, TRACKS, Layout, read_version, write_version
from maskdet.tables.receipts import Receipt
from maskdet.tracks.table import COLUMNS, track_video

_NAME_DIGITS = 2
_Row = tuple[str, bytes]


@dataclass(frozen=True)
class TrackJob:
    """Everything a worker needs to make tracks of rows.

    Attributes:
        layout: where the tables go.
        rule: the run's keys.
        levels: groups to count.
        time_zone: of the groups' dates and hours.
        settings: what links faces.
        decision: the run's thresholds.
        confidence: nominal coverage of the intervals.
        class_names: the model's.
        row_group_rows: rows per Parquet row group.
        privacy: what their rates hide.
    """

    layout: Layout
    rule: KeyRule
    levels: Mapping[str, Sequence[str]]
    time_zone: str
    settings: TrackSettings
    decision: Decision
    confidence: float
    class_names: ClassNames
    row_group_rows: int
    privacy: PrivacySettings = PrivacySettings()

    @property
    def needs_all(self) -> bool:
        """Whether rates can only be written with the groups of all levels at hand."""
        return self.privacy.hides

    def rows_of(self, receipt: Receipt) -> Iterator[_Row]:
        """A shard's rows of videos: for each video, its file name and the rows as an Arrow stream.

        Raises:
            OutputError: the shard's file is missing or damaged.
            StorageError: the output cannot be read.
        """
        if receipt.segments is None or not receipt.rows.get(PREDICTIONS):
            return
        sha256 = receipt.sha256[PREDICTIONS]
        columns = [*COLUMNS, "width_px", "height_px", *self.rule.all_names]
        found = read_version(self.layout, PREDICTIONS, receipt.slot, sha256, columns)
        if found is None:
            uri = self.layout.version(PREDICTIONS, receipt.slot, sha256)
            raise OutputError(uri, "what this run wrote or kept", "a missing or damaged file", "Run again.")
        schema = predictions_schema(self.rule.all_names)
        rows = conform(found, pa.schema([schema.field(name) for name in columns]))
        rows = rows.filter(pc.and_(pc.is_valid(rows["frame_time_us"]), pc.is_valid(rows["face_left_px"])))
        for uri in sorted(set(rows["image_uri"].to_pylist())):
            yield _name_of(uri), _packed(rows.filter(pc.equal(rows["image_uri"], uri)))

    def write(self, name: str, packed: Iterable[bytes]) -> TracksFile | None:
        """Make and write the tracks of the videos of one file; ``None`` if there are none.

        Args:
            name: the file's.
            packed: rows of its videos, in any order.

        Raises:
            StorageError: the output cannot be written.
        """
        by_video: dict[str, list[pa.Table]] = {}
        for part in packed:
            rows = _unpacked(part)
            by_video.setdefault(rows["image_uri"][0].as_py(), []).append(rows)
        names = self.rule.all_names
        made = [
            track_video(pa.concat_tables(by_video.pop(uri)), names, self.settings, self.decision)
            for uri in sorted(by_video)
        ]
        tracks = pa.concat_tables(made).combine_chunks().replace_schema_metadata(tracks_schema(names).metadata)
        if not tracks.num_rows:
            return None
        sha256 = write_version(self.layout, TRACKS, name, tracks, self.row_group_rows)
        return TracksFile(
            sha256, count_tracks(tracks, self.rule, self.levels, self.time_zone, self.settings.min_frames)
        )

    def write_rates(self, groups: Mapping[GroupKey, TrackCounts]) -> dict[str, TracksTotal]:
        """Write the rates of the levels to which some groups belong.

        Args:
            groups: every group of these levels; of all levels where :attr:`needs_all`.

        Raises:
            StorageError: the output cannot be written.
        """
        least, all_names = self.privacy.min_cell, key_union(self.levels)
        hidden = hide_track_groups(groups, self.levels, least) if self.needs_all else frozenset()
        totals = {}
        for level, counts in by_level(groups).items():
            shown = Disclosure.of(level, hidden, self.privacy)
            table = track_rates_table(counts, self.levels[level], all_names, self.confidence, self.class_names, shown)
            sha256 = write_version(self.layout, TRACK_RATES, level, table, self.row_group_rows)
            totals[level] = TracksTotal(sha256, merge_tracks(counts.values()))
        return totals

    def write_all(self, receipts: Iterable[Receipt]) -> TrackFiles:
        """Make and write the tracks of all videos with rows in some shards, one file after another.

        Raises:
            OutputError: a shard's file is missing or damaged.
            StorageError: the output cannot be read or written.
        """
        rows: dict[str, list[bytes]] = {}
        for receipt in receipts:
            for name, packed in self.rows_of(receipt):
                rows.setdefault(name, []).append(packed)
        files = {name: file for name in sorted(rows) if (file := self.write(name, rows.pop(name))) is not None}
        rates = self.write_rates(merge_groups(file.groups for file in files.values()))
        return TrackFiles({name: file.sha256 for name, file in files.items()}, rates)


@dataclass(frozen=True)
class TracksFile:
    """A written file of tracks: its SHA-256, and its tracks by group."""

    sha256: str
    groups: Mapping[GroupKey, TrackCounts]


class TracksTotal(NamedTuple):
    """A level's written rates: SHA-256 of the file, and all its tracks."""

    sha256: str
    counts: TrackCounts


@dataclass(frozen=True)
class TrackFiles:
    """The tables of tracks of a run.

    Attributes:
        tracks: name → SHA-256 of each file of tracks.
        rates: level → each file of their rates.
    """

    tracks: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, TracksTotal] = field(default_factory=dict)

    @property
    def by_label(self) -> dict[str, int]:
        """Tracks that count in rates, by label."""
        return self.rates["all"].counts._asdict() if "all" in self.rates else {}


def merge_groups(parts: Iterable[Mapping[GroupKey, TrackCounts]]) -> dict[GroupKey, TrackCounts]:
    """Add up counts by group."""
    total: dict[GroupKey, TrackCounts] = {}
    for part in parts:
        for key, counts in part.items():
            total[key] = merge_tracks([total.get(key, TrackCounts()), counts])
    return total


def by_level(groups: Mapping[GroupKey, TrackCounts]) -> dict[str, dict[tuple[str | None, ...], TrackCounts]]:
    """Counts of each level, by the values of its keys."""
    levels: dict[str, dict[tuple[str | None, ...], TrackCounts]] = {}
    for key in sorted(groups, key=GroupKey.encode):
        levels.setdefault(key.level, {})[key.values] = groups[key]
    return levels


def _name_of(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:_NAME_DIGITS]


def _packed(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(rows.combine_chunks())
    return bytes(sink.getvalue().to_pybytes())


def _unpacked(packed: bytes) -> pa.Table:
    with pa.ipc.open_stream(packed) as reader:
        return reader.read_all()
