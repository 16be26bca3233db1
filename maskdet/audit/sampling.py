"""A stratified random sample of an output's faces, to be labelled by people.

Strata are groups (by any keys) crossed with bands of the model's probability: where the model is unsure, labels say
more, so more faces are drawn. Every face has a known chance of being drawn, so the sample speaks for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskdet.answer_schemas import audit_schema
from maskdet.compliance.groups import RowKeys
from maskdet.compliance.state import FIXED_POINT
from maskdet.errors import ConfigError, SourceError
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import worn_probability
from maskdet.report.sampling import hash_rows
from maskdet.tables.disclosure import refuse_small_groups
from maskdet.tables.layout import PREDICTIONS, Layout, read_table
from maskdet.tables.run_records import RunRecord, read_run
from maskdet.tables.snapshot import current_snapshot

LEAST_PER_STRATUM = 2
"""With fewer, a stratum's variance cannot be estimated."""
_LEAST_DEVIATION = 0.1
"""The standard deviation assumed where the model is sure: it may still be wrong."""
_FACE_COLUMNS = (
    *("image_uri", "content_sha256", "face_index", "face_left_px", "face_top_px", "face_width_px", "face_height_px"),
    *("probability_mask", "probability_incorrect", "label"),
)

Stratum = tuple[tuple[str | None, ...], int]
"""Values of the group's keys, and the band."""


@dataclass
class _Found:
    """What is known of a stratum while rows are being read."""

    faces: int = 0
    worn: int = 0
    mask: int = 0
    spread: float = 0.0
    kept: list[pa.Table] = field(default_factory=list)


def draw_sample(layout: Layout, size: int, by: Sequence[str], seed: int, *, small_groups: bool = True) -> pa.Table:
    """Draw faces at random, stratified by groups and by bands of the probability that there is a mask.

    In each stratum, the faces with the smallest hashes of content, face and seed are drawn: the choice depends on the
    rows alone, not on how they are spread over files. Faces in videos are left out.

    Args:
        layout: the output.
        size: faces to draw; all of them if there are fewer.
        by: keys, as of ``compliance.levels``.
        seed: another seed gives another sample.
        small_groups: whether the sample's readers may see what ``privacy`` hides or rounds.

    Returns:
        One row per face; see :func:`maskdet.answer_schemas.audit_schema`.

    Raises:
        ConfigError: its readers may not see small groups, a key is unknown, or the size is below two faces per
            stratum.
        SourceError: the output holds no tables, or no face.
        StorageError: a table cannot be read.
    """
    snapshot = current_snapshot(layout)
    run = read_run(layout, snapshot.run_id)
    refuse_small_groups([run], allowed=small_groups)
    edges = bands(run.decision.middle)
    found: dict[Stratum, _Found] = {}
    dataset = snapshot.dataset
    zone = run.settings.get("compliance", {}).get("time_zone") or dataset.timezone
    rule = KeyRule(dataset.key_names, (), zone)
    _refuse_unknown(by, rule)
    for rows in _scan(layout, snapshot.files(layout, PREDICTIONS), rule):
        _look_at(rows, RowKeys(rows, (), rule, zone), by, edges, size, seed, found)
    if not found:
        raise SourceError("output", "an output with faces", layout.root, "Run maskdet score first.")
    drawn = allocate({stratum: (one.faces, _deviation(one)) for stratum, one in found.items()}, size)
    return _sample(found, drawn, by, edges, run, seed)


def bands(middle: float) -> tuple[float, ...]:
    """Where bands of the probability begin: surely none, rather none, rather a mask, surely one.

    Args:
        middle: midpoint of the thresholds for whether there is a mask.
    """
    return (0.0, middle / 2, middle, (1 + middle) / 2)


def allocate(strata: Mapping[Stratum, tuple[int, float]], size: int) -> dict[Stratum, int]:
    """How many faces to draw from each stratum.

    In proportion to faces times deviation (J. Neyman, Journal of the Royal Statistical Society 97 (1934), 558-625), at
    least two, and at most all.

    Args:
        strata: for each, its faces and the standard deviation of what is to be estimated.
        size: faces to draw.

    Raises:
        ConfigError: the size is below two faces per stratum.
    """
    total = sum(faces for faces, _ in strata.values())
    least = {stratum: min(LEAST_PER_STRATUM, faces) for stratum, (faces, _) in strata.items()}
    if sum(least.values()) > size:
        expected = f"at least {sum(least.values())} faces, two for each of {len(strata)} strata"
        raise ConfigError("--size", expected, size, "Draw more, or group by fewer keys.")
    drawn, left = dict(least), min(size, total) - sum(least.values())
    while left > 0:
        open_strata = {stratum: faces * s for stratum, (faces, s) in strata.items() if drawn[stratum] < faces}
        whole = sum(open_strata.values())
        shares = {stratum: left * weight / whole for stratum, weight in open_strata.items()}
        given = {stratum: min(int(share), strata[stratum][0] - drawn[stratum]) for stratum, share in shares.items()}
        if not any(given.values()):  # the rest goes one by one to the largest remainders
            order = sorted(shares, key=lambda stratum: (-shares[stratum], repr(stratum)))
            given = dict.fromkeys(order[:left], 1)
        for stratum, count in given.items():
            drawn[stratum] += count
        left -= sum(given.values())
    return drawn


def _refuse_unknown(by: Sequence[str], rule: KeyRule) -> None:
    known = (*rule.key_names, "date", "week", "month", "hour", "weekday")
    for name in by:
        if name not in known:
            raise ConfigError("--by", f"keys of the output, of {list(known)}", name, "See maskdet inspect.")


def _scan(layout: Layout, files: Sequence[str], rule: KeyRule) -> Iterator[pa.Table]:
    columns = list(dict.fromkeys([*_FACE_COLUMNS, "frame_time_us", "captured_at", *rule.key_names]))
    for uri in files:
        rows = read_table(uri, columns)
        if "frame_time_us" in rows.column_names:  # tables of an earlier version have no videos
            rows = rows.filter(pc.is_null(rows["frame_time_us"]))
        if rows.num_rows:
            yield rows.replace_schema_metadata(None)


def _look_at(
    rows: pa.Table,
    keys: RowKeys,
    by: Sequence[str],
    edges: Sequence[float],
    size: int,
    seed: int,
    found: dict[Stratum, _Found],
) -> None:
    """Add some rows to what is known of their strata, and keep the faces with the smallest hashes in each."""
    groups, values = keys.group(by)
    mask = np.asarray(rows["probability_mask"]).astype(np.float64)
    worn = worn_probability(mask, np.asarray(pc.fill_null(rows["probability_incorrect"], 0.0)))
    band = np.searchsorted(edges, worn, side="right") - 1
    hashes = hash_rows(rows, seed)
    rows = rows.select(_FACE_COLUMNS).append_column("hash", pa.array(hashes))
    for number in np.unique(groups * len(edges) + band).tolist():
        group, place = divmod(number, len(edges))
        members = np.flatnonzero((groups == group) & (band == place))
        one = found.setdefault((values[group], place), _Found())
        one.faces += len(members)
        one.worn += _fixed(worn[members])
        one.mask += _fixed(mask[members])
        one.spread += float(np.sum(worn[members] * (1 - worn[members])))
        best = members[np.argsort(hashes[members], kind="stable")[:size]]
        one.kept = [_smallest(pa.concat_tables([*one.kept, rows.take(best)]), size)]


def _smallest(rows: pa.Table, size: int) -> pa.Table:
    order = [("hash", "ascending"), ("image_uri", "ascending"), ("face_index", "ascending")]
    return rows.sort_by(order).slice(0, size).combine_chunks()


def _fixed(values: NDArray[np.float64]) -> int:
    return int(np.rint(values * FIXED_POINT).astype(np.int64).sum())


def _deviation(one: _Found) -> float:
    return max(_LEAST_DEVIATION, math.sqrt(max(0.0, one.spread / one.faces)))


def _sample(
    found: Mapping[Stratum, _Found],
    drawn: Mapping[Stratum, int],
    by: Sequence[str],
    edges: Sequence[float],
    run: RunRecord,
    seed: int,
) -> pa.Table:
    schema = audit_schema(by)
    parts: list[dict[str, Any]] = []
    for number, stratum in enumerate(sorted(found, key=lambda key: ([v or "" for v in key[0]], repr(key)))):
        one, (values, band) = found[stratum], stratum
        shared = {
            **dict(zip(by, values, strict=True)),
            "stratum": number,
            "band": f"from {edges[band]:.3g}",
            "stratum_faces": one.faces,
            "stratum_drawn": drawn[stratum],
            "stratum_probability_worn": one.worn / FIXED_POINT,
            "stratum_probability_mask": one.mask / FIXED_POINT,
            "inclusion_probability": drawn[stratum] / one.faces,
            "model_id": run.model["id"],
        }
        parts += [{**row, **shared} for row in one.kept[0].slice(0, drawn[stratum]).to_pylist()]
    # In the order of hashes: people who label see the strata mixed, and may stop at any point.
    parts.sort(key=lambda row: (row["hash"], row["image_uri"], row["face_index"]))
    table = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in parts], schema=schema)
    return table.replace_schema_metadata({**schema.metadata, b"maskdet.seed": str(seed).encode()})
