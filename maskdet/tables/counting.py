"""Count an output's tables anew, by any keys and for any days, without running a pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from maskdet.compliance.groups import Grouping, count_groups
from maskdet.compliance.state import GroupKey, Merger, State
from maskdet.inputs.sharding import KeyRule
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema
from maskdet.tables.layout import FAILURES, NO_FACE, PREDICTIONS, SHARD_TABLES, Layout, read_table
from maskdet.tables.snapshot import Snapshot

READERS = 16  # over a network, a read is nearly all waiting
_ROWS_AT_ONCE = 200_000


@dataclass(frozen=True)
class Period:
    """Days in some time zone, from the first to the last, both inclusive; ``None`` leaves a side open."""

    first: date | None = None
    last: date | None = None

    def limits_ms(self, time_zone: str) -> tuple[int | None, int | None]:
        """The first instant of the period and the first one after it, in milliseconds since 1970."""
        after = None if self.last is None else self.last + timedelta(days=1)
        return tuple(None if day is None else _midnight_ms(day, time_zone) for day in (self.first, after))  # type: ignore[return-value]

    def __str__(self) -> str:
        if self.first == self.last:
            return "all days" if self.first is None else str(self.first)
        return f"{self.first or ''}..{self.last or ''}"


def count_output(
    layout: Layout, snapshot: Snapshot, grouping: Grouping, period: Period | None = None
) -> dict[GroupKey, State]:
    """What is known of every group of an output's tables.

    Args:
        layout: the output.
        snapshot: its current set of tables.
        grouping: levels, clusters, time zone and corrections.
        period: leaves out images of other days and those without a capture time; default: all images.

    Raises:
        StorageError: a table cannot be read.
    """
    dataset = snapshot.dataset
    # Without partitions: every key is a column, or follows from the capture time.
    rule = KeyRule(dataset.key_names, (), dataset.timezone)
    time_zone = grouping.time_zone or dataset.timezone
    total: dict[GroupKey, Merger] = {}
    for table, rows in _tables(layout, snapshot, grouping):
        some = rows if period is None else _within(rows, period.limits_ms(time_zone))
        three = {name: some if name == table else _empty(name, rows, dataset.key_names) for name in SHARD_TABLES}
        counted = count_groups(three[PREDICTIONS], three[FAILURES], three[NO_FACE], (), rule, grouping)
        for key, state in counted.items():
            total.setdefault(key, Merger()).add(state)
    return {key: merger.state() for key, merger in total.items()}


def group_states(states: Mapping[GroupKey, State], level: str) -> dict[tuple[str | None, ...], State]:
    """The groups of one level."""
    return {key.values: state for key, state in states.items() if key.level == level}


def _tables(layout: Layout, snapshot: Snapshot, grouping: Grouping) -> Iterator[tuple[str, pa.Table]]:
    """Rows of every table, in parts of limited size."""
    keys = ["captured_at", *snapshot.dataset.key_names]
    columns = {PREDICTIONS: list(dict.fromkeys([*keys, *grouping.prediction_columns])), FAILURES: keys, NO_FACE: keys}
    with ThreadPoolExecutor(READERS, thread_name_prefix="rows") as pool:
        for table in SHARD_TABLES:
            files = snapshot.files(layout, table)
            for start in range(0, len(files), READERS * 8):
                some = files[start : start + READERS * 8]
                parts = list(pool.map(lambda uri: read_table(uri, columns[table]), some))  # noqa: B023
                yield from ((table, part) for part in _joined(parts))


def _joined(parts: Sequence[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for part in parts:
        held.append(part)
        if sum(table.num_rows for table in held) >= _ROWS_AT_ONCE:
            yield _concat(held)
            held = []
    if held:
        yield _concat(held)


def _concat(parts: Sequence[pa.Table]) -> pa.Table:
    # Files of an earlier version lack columns, which are then null.
    bare = [part.replace_schema_metadata(None) for part in parts]
    return pa.concat_tables(bare, promote_options="default").combine_chunks()


def _within(rows: pa.Table, limits: tuple[int | None, int | None]) -> pa.Table:
    times = pc.cast(rows["captured_at"], pa.int64())
    kept = pc.is_valid(times)
    if limits[0] is not None:
        kept = pc.and_(kept, pc.greater_equal(pc.fill_null(times, limits[0]), limits[0]))
    if limits[1] is not None:
        kept = pc.and_(kept, pc.less(pc.fill_null(times, limits[1]), limits[1]))
    return rows.filter(kept)


def _empty(table: str, rows: pa.Table, key_names: Sequence[str]) -> pa.Table:
    schema = {PREDICTIONS: predictions_schema, FAILURES: failures_schema, NO_FACE: no_face_schema}[table]
    return schema(key_names).empty_table()


def _midnight_ms(day: date, time_zone: str) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(time_zone)).timestamp() * 1000)
