"""Choose rows of an output to look at, in one pass over its files that keeps only the rows chosen."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import ConfigError, StorageError
from maskdet.labels import INCORRECT, MASK, NO_MASK, THREE_CLASSES, worn_probability
from maskdet.tables.layout import NO_FACE, PREDICTIONS, Layout
from maskdet.tables.runs import RunRecord
from maskdet.tables.snapshot import Dataset

Hashes = NDArray[np.uint64]

_BATCH_ROWS = 65_536
_TIME = "frame_time_us"
_IDENTITY = ["image_uri", "content_sha256", _TIME]
FACE_COLUMNS = [
    *_IDENTITY,
    *("face_index", "face_left_px", "face_top_px", "face_width_px", "face_height_px"),
    *("probability_mask", "probability_incorrect", "label"),
]
# Beyond it, float32 probabilities near 1 are 1.
_SMALLEST = 1e-8


class Section(NamedTuple):
    """Some rows of an output and what they have in common."""

    title: str
    rows: list[dict[str, Any]]
    total: int
    """How many rows they were chosen from."""


@dataclass(frozen=True)
class Where:
    """Which rows may be chosen, and what is shown of each besides its face.

    Attributes:
        keys: the output's keys, which rows carry along with their capture times.
        allowed: key → the values that it may have, as text; ``None`` stands for a missing value.
    """

    keys: tuple[str, ...] = ()
    allowed: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, allowed: Mapping[str, tuple[str | None, ...]]) -> Where:
        """That of a data set.

        Raises:
            ConfigError: it has no such key.
        """
        keys = tuple(dict.fromkeys((*dataset.key_names, *dataset.partition_by)))
        for name in allowed:
            if name not in keys:
                raise ConfigError("--where", f"one of the keys {list(keys)}", name, "See maskdet inspect.")
        return cls(keys, allowed)

    @property
    def columns(self) -> list[str]:
        """The columns that it needs."""
        return [*self.keys, "captured_at"]

    def of_rows(self, rows: pa.Table) -> pa.Table:
        """The rows that may be chosen."""
        for name, values in self.allowed.items():
            text = pc.cast(rows[name], pa.string())
            given = [value for value in values if value is not None]
            matches = pc.is_in(text, pa.array(given, pa.string()))
            rows = rows.filter(pc.or_(matches, pc.is_null(text)) if None in values else matches)
        return rows


EVERYWHERE = Where()


def choose_sections(layout: Layout, run: RunRecord, count: int, seed: int, where: Where = EVERYWHERE) -> list[Section]:
    """Choose rows to look at: the least sure, the surest of each label, random ones, and images without a face.

    Among equal probabilities, and at random, a row is chosen by a hash of seed and content, so that the choice depends
    on the rows alone, not on how they are spread over files.

    Args:
        layout: the output.
        run: its latest run, whose thresholds say what is least sure.
        count: most rows per section.
        seed: another seed gives another choice.
        where: which rows may be chosen.

    Returns:
        Sections that have rows.

    Raises:
        OutputError: the run's record does not hold its thresholds.
        StorageError: a table cannot be read.
    """
    middle = run.decision.middle
    unsure, chance, faceless = (_Best(count) for _ in range(3))
    surest = {label: _Best(count) for label in THREE_CLASSES}
    for scanned in _scan(layout, PREDICTIONS, [*FACE_COLUMNS, *where.columns]):
        rows = where.of_rows(scanned)
        ties, draws = hash_rows(rows, seed), hash_rows(rows, ~seed)
        mask = rows["probability_mask"].to_numpy()
        incorrect = pc.fill_null(rows["probability_incorrect"], 0.0).to_numpy()  # null for a model with two classes
        worn = worn_probability(mask, incorrect)
        unsure.offer(rows, np.abs(_log_odds(worn) - _log_odds(middle)), ties)
        for label, doubt in ((MASK, -mask), (INCORRECT, -incorrect), (NO_MASK, worn)):
            of_label = np.flatnonzero(pc.equal(rows["label"], label).to_numpy())
            surest[label].offer(rows.take(of_label), doubt[of_label].astype(np.float64), ties[of_label])
        chance.offer(rows, np.zeros(len(draws)), draws)
    for scanned in _scan(layout, NO_FACE, [*_IDENTITY, *where.columns]):
        rows = where.of_rows(scanned)
        faceless.offer(rows, np.zeros(rows.num_rows), hash_rows(rows, ~seed))
    sections = [
        unsure.section(f"most uncertain: log-odds nearest to those of {middle:.3g}, the middle of the thresholds"),
        *(best.section(f"most confident {label}") for label, best in surest.items()),
        chance.section(f"random faces (seed {seed})"),
        faceless.section(f"images without a face, at random (seed {seed})"),
    ]
    return [section for section in sections if section.rows]


class _Best:
    """Keeps the rows with the smallest keys and, among equal keys, those with the smallest hashes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._total = 0
        self._kept: pa.Table | None = None

    def offer(self, rows: pa.Table, keys: NDArray[np.float64], ties: Hashes) -> None:
        """Consider a batch of rows."""
        self._total += rows.num_rows
        if self._kept is not None and self._kept.num_rows == self._count:
            rows, keys, ties = _up_to(rows, keys, ties, self._kept["key"][-1].as_py(), self._kept["tie"][-1].as_py())
        if len(keys) > self._count:
            last = np.lexsort((ties, keys))[self._count - 1]
            rows, keys, ties = _up_to(rows, keys, ties, keys[last], ties[last])
        if not rows.num_rows:
            return
        more = rows.append_column("key", pa.array(keys)).append_column("tie", pa.array(ties))
        candidates = more if self._kept is None else pa.concat_tables([self._kept, more])
        # The last two tell apart copies of an image, and faces of one image.
        order = [name for name in ("key", "tie", "image_uri", "face_index") if name in candidates.column_names]
        self._kept = candidates.sort_by([(name, "ascending") for name in order]).slice(0, self._count).combine_chunks()

    def section(self, title: str) -> Section:
        """The rows that were kept."""
        rows = [] if self._kept is None else self._kept.drop_columns(["key", "tie"]).to_pylist()
        return Section(title, rows, self._total)


def _up_to(
    rows: pa.Table, keys: NDArray[np.float64], ties: Hashes, last_key: float, last_tie: int
) -> tuple[pa.Table, NDArray[np.float64], Hashes]:
    """The rows up to and including a key and hash."""
    near = np.flatnonzero((keys < last_key) | ((keys == last_key) & (ties <= np.uint64(last_tie))))
    return rows.take(near), keys[near], ties[near]


def _scan(layout: Layout, table: str, columns: list[str]) -> Iterator[pa.Table]:
    """Batches of some columns of a table, whatever its partitions."""
    for file in storage.list_folder(layout.folder(table)):
        if not file.uri.endswith(".parquet"):
            continue
        try:
            with storage.open_binary(file.uri) as stream:
                for batch in pq.ParquetFile(stream).iter_batches(_BATCH_ROWS, columns=columns):
                    rows = pa.Table.from_batches([batch])
                    # Tables of an earlier version have no videos.
                    yield (
                        rows
                        if _TIME in rows.column_names
                        else rows.append_column(_TIME, pa.nulls(len(rows), pa.int64()))
                    )
        except pa.ArrowException as error:
            raise StorageError(
                file.uri, "a Parquet file of this version", str(error), "Run maskdet score again; it makes it anew."
            ) from error


def hash_rows(rows: pa.Table, seed: int) -> Hashes:
    """64 bits of a row's content, face and seed, ``(rows,)``."""
    heads = pc.utf8_slice_codeunits(rows["content_sha256"], 0, 16).to_numpy().astype("S16")
    words = np.ascontiguousarray(heads).view("<u8").reshape(-1, 2)
    faces = rows["face_index"].to_numpy() if "face_index" in rows.column_names else np.zeros(rows.num_rows, np.int32)
    parts = (words[:, 0], words[:, 1], faces.astype(np.uint64), np.uint64(seed % 2**64))
    return functools.reduce(lambda mixed, part: _mix(mixed ^ part), parts, np.zeros(rows.num_rows, np.uint64))


def _mix(values: Hashes) -> Hashes:
    """SplitMix64's step (Steele, Lea and Flood, 2014): every bit of the value changes half of the result's bits."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _log_odds(probabilities: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Log-odds; a plain difference would call 0.01 less sure than 0.9 if the threshold is 0.2."""
    inner = np.clip(np.asarray(probabilities, np.float64), _SMALLEST, 1 - _SMALLEST)
    odds: NDArray[np.float64] = np.log(inner) - np.log1p(-inner)
    return odds
