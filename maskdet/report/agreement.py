"""Compare two outputs over the same photographs: what two models, detectors or thresholds say of the same faces.

Two faces are the same where their boxes overlap by half at least and each is the other's best match. Images whose bytes
changed between the runs are not compared. Labels are those of the models: people's corrections say nothing about how
models agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from maskdet.compliance.intervals import Interval, paired_difference_interval
from maskdet.errors import ConfigError
from maskdet.labels import INCORRECT, LABELS, MASK, UNCERTAIN
from maskdet.report.database import WORN, Tables, tells_incorrect

LEAST_OVERLAP = 0.5
"""Least intersection over union of two boxes of one face."""

# Outcome of an image → view, its content, which rows. Failed images may not have been read.
_VIEWS = {
    "scored": ("stored", "content_sha256", " WHERE face_index = 0"),
    "no_face": ("faceless", "content_sha256", ""),
    "failed": ("failed", "CAST(NULL AS VARCHAR)", ""),
}
OUTCOMES = tuple(_VIEWS)
_NEW = "attached_"
_BOTH = "old_images a JOIN new_images b USING (image_uri)"
_CHANGED = "(a.content_sha256 <> b.content_sha256)"

_BOX = ("left", "top", "width", "height")


@dataclass(frozen=True)
class RateChange:
    """A rate among the faces that both outputs label with a class.

    Attributes:
        before: the share in the old output.
        after: in the new one.
        interval: of after minus before; faces of one image count as alike. ``None`` with fewer than two images.
    """

    before: float
    after: float
    interval: Interval | None

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before


class Face(NamedTuple):
    """A face on which the outputs differ: its row of the old output, and what the new one says."""

    row: dict[str, Any]
    label: str
    worn: float
    """Probability of a mask in the new output; the old one's is in the row."""


@dataclass(frozen=True)
class Agreement:
    """How two outputs agree on the same photographs.

    Attributes:
        images: in both outputs with the same bytes, where both could be read.
        only: images in the old output alone, and in the new one alone.
        changed: images in both whose bytes differ.
        outcomes: images by outcome in the old and in the new output.
        faces: that both found.
        faces_only: faces that only the old output has, and only the new one.
        labels: faces that both found, by label in the old and in the new output.
        agreement: share of them with the same label; ``None`` if there are none.
        kappa: Cohen's, the agreement beyond chance; ``None`` where all have one label in both.
        rates: name → how the rate differs, among faces that both label with a class.
        confidence: of the intervals.
    """

    images: int
    only: tuple[int, int]
    changed: int
    outcomes: dict[tuple[str, str], int]
    faces: int
    faces_only: tuple[int, int]
    labels: dict[tuple[str, str], int]
    agreement: float | None
    kappa: float | None
    rates: dict[str, RateChange]
    confidence: float


def compare(old: Tables, new: Tables, confidence: float = 0.95) -> Agreement:
    """Compare two outputs.

    Args:
        old: one output, whose database makes the comparison.
        new: the other.
        confidence: of the intervals.

    Raises:
        ConfigError: they have no image in common.
    """
    old.attach(new, _NEW)
    _pair(old)
    both = dict(
        _counted(old, f"SELECT a.outcome, b.outcome, count(*) FROM {_BOTH} WHERE coalesce(NOT {_CHANGED}, true)")
    )
    images = sum(both.values())
    if not images:
        remedy = "Give two outputs over the same photographs."
        raise ConfigError("outputs to compare", f"images of {old.layout.root}", "none of them unchanged", remedy)
    labels = dict(_counted(old, "SELECT old_label, new_label, count(*) FROM pairs"))
    faces = sum(labels.values())
    return Agreement(
        images=images,
        only=(_alone(old, "old_images", "new_images"), _alone(old, "new_images", "old_images")),
        changed=old.rows(f"SELECT count(*) FROM {_BOTH} WHERE {_CHANGED}")[0][0],
        outcomes=both,
        faces=faces,
        faces_only=(_unpaired(old, "old"), _unpaired(old, "new")),
        labels=labels,
        agreement=sum(number for (one, other), number in labels.items() if one == other) / faces if faces else None,
        kappa=cohens_kappa(labels),
        rates=_rates(old, confidence, told=tells_incorrect(old) and tells_incorrect(new)),
        confidence=confidence,
    )


def most_different(old: Tables, count: int) -> list[Face]:
    """The faces on which the outputs differ most, those with different labels first; call :func:`compare` first.

    Args:
        old: the output whose database made the comparison.
        count: most faces.
    """
    columns = ("image_uri", "content_sha256", "face_index", *(f"face_{side}_px" for side in _BOX))
    names = (*columns, "probability_mask", "probability_incorrect", "label", "captured_at_ms", *old.keys)
    selected = ", ".join(f'pairs."{name}"' for name in names)
    rows = old.rows(
        f"SELECT {selected}, new_label, new_worn FROM pairs "
        "ORDER BY label = new_label, abs(old_worn - new_worn) DESC, image_uri, face_index LIMIT ?",
        [count],
    )
    return [Face(dict(zip(names, row, strict=False)), *row[len(names) :]) for row in rows]


def cohens_kappa(labels: dict[tuple[str, str], int]) -> float | None:
    """Agreement beyond chance: J. Cohen, Educational and Psychological Measurement 20 (1960), 37-46.

    Args:
        labels: counts by both labels.

    Returns:
        ``None`` where chance alone would always agree, or nothing was counted.
    """
    total = sum(labels.values())
    if not total:
        return None
    agreed = sum(number for (one, other), number in labels.items() if one == other) / total
    names = {name for pair in labels for name in pair}
    by_chance = sum(
        sum(number for pair, number in labels.items() if pair[0] == name)
        * sum(number for pair, number in labels.items() if pair[1] == name)
        for name in names
    ) / (total * total)
    return None if by_chance == 1.0 else (agreed - by_chance) / (1 - by_chance)


def _pair(tables: Tables) -> None:
    """Make tables of each side's images and faces, and of the faces that match."""
    for side, prefix in (("old", ""), ("new", _NEW)):
        parts = [
            f"SELECT image_uri, {sha256} AS content_sha256, '{outcome}' AS outcome FROM {prefix}{view}{condition}"
            for outcome, (view, sha256, condition) in _VIEWS.items()
        ]
        tables.execute(f"CREATE VIEW {side}_images AS {' UNION ALL '.join(parts)}")
        # A face that is a whole image has no box.
        box = [f"coalesce(face_{name}_px, {whole}) AS {name}" for name, whole in zip(_BOX, _WHOLE, strict=True)]
        tables.execute(f"CREATE VIEW {side}_faces AS SELECT *, {WORN} AS worn, {', '.join(box)} FROM {prefix}stored")
    keys = "".join(f', o."{key}"' for key in tables.keys)
    columns = (
        "o.image_uri, o.content_sha256, o.face_index, o.face_left_px, o.face_top_px, o.face_width_px, "
        "o.face_height_px, o.probability_mask, o.probability_incorrect, o.label, o.label AS old_label, "
        f"epoch_ms(o.captured_at) AS captured_at_ms, o.worn AS old_worn{keys}, "
        "n.label AS new_label, n.worn AS new_worn, n.face_index AS new_index"
    )
    tables.execute(
        f"CREATE TABLE pairs AS SELECT * EXCLUDE (overlap, first, second) FROM ("
        "SELECT *, row_number() OVER (PARTITION BY image_uri, face_index ORDER BY overlap DESC, new_index) AS first, "
        "row_number() OVER (PARTITION BY image_uri, new_index ORDER BY overlap DESC, face_index) AS second FROM ("
        f"SELECT {columns}, {_OVERLAP} AS overlap "
        "FROM old_faces o JOIN new_faces n USING (image_uri, content_sha256)) "
        f"WHERE overlap >= {LEAST_OVERLAP}) WHERE first = 1 AND second = 1"
    )


_WHOLE = ("0", "0", "width_px", "height_px")
_SHARED = " * ".join(
    f"greatest(0, least(o.{start} + o.{size}, n.{start} + n.{size}) - greatest(o.{start}, n.{start}))"
    for start, size in (("left", "width"), ("top", "height"))
)
_OVERLAP = f"({_SHARED}) / (o.width * o.height + n.width * n.height - ({_SHARED}))"


def _counted(tables: Tables, query: str) -> list[tuple[tuple[str, str], int]]:
    return [((one, other), number) for one, other, number in tables.rows(f"{query} GROUP BY ALL ORDER BY ALL")]


def _alone(tables: Tables, one: str, other: str) -> int:
    return int(tables.rows(f"SELECT count(*) FROM {one} ANTI JOIN {other} USING (image_uri)")[0][0])


def _unpaired(tables: Tables, side: str) -> int:
    """Faces of images in both outputs that have no partner."""
    other = "new" if side == "old" else "old"
    index = "face_index" if side == "old" else "new_index"
    found = tables.rows(
        f"SELECT count(*) FROM {side}_faces f SEMI JOIN {other}_images i USING (image_uri, content_sha256) "
        f"ANTI JOIN pairs p ON f.image_uri = p.image_uri AND f.face_index = p.{index}"
    )
    return int(found[0][0])


def _rates(tables: Tables, confidence: float, *, told: bool) -> dict[str, RateChange]:
    worn = {"any_mask_rate": f"IN ('{MASK}', '{INCORRECT}')"} | ({"correct_rate": f"= '{MASK}'"} if told else {})
    found = {}
    for name, condition in worn.items():
        of_image = (
            f"SELECT count(*) AS n, count(*) FILTER (old_label {condition}) AS x, "
            f"count(*) FILTER (new_label {condition}) AS y FROM pairs "
            f"WHERE old_label <> '{UNCERTAIN}' AND new_label <> '{UNCERTAIN}' GROUP BY image_uri"
        )
        images, faces, before, after, nn, dd, nd = tables.rows(
            "SELECT count(*), sum(n), sum(x), sum(y), sum(n * n), sum((y - x) * (y - x)), sum(n * (y - x)) "
            f"FROM ({of_image})"
        )[0]
        if images:
            interval = paired_difference_interval(
                images, int(faces), int(after - before), (int(nn), int(dd), int(nd)), confidence
            )
            found[name] = RateChange(int(before) / int(faces), int(after) / int(faces), interval)
    return found


def describe(found: Agreement) -> list[str]:
    """The comparison as lines for a terminal."""
    lines = [f"images    {found.images:,} in both outputs, unchanged"]
    lines += [f"          {found.changed:,} whose bytes changed: not compared"] if found.changed else []
    lines += (
        [f"          {found.only[0]:,} only in the old, {found.only[1]:,} only in the new"] if any(found.only) else []
    )
    moved = {pair: number for pair, number in found.outcomes.items() if pair[0] != pair[1]}
    lines += [f"          {number:,} {one} → {other}" for (one, other), number in moved.items()]
    lines.append(
        f"faces     {found.faces:,} found by both, {found.faces_only[0]:,} by the old alone, "
        f"{found.faces_only[1]:,} by the new alone"
    )
    if found.agreement is not None:
        kappa = "" if found.kappa is None else f", kappa {found.kappa:.3f}"
        lines.append(f"labels    {found.agreement:.2%} alike{kappa}")
    order = {name: place for place, name in enumerate(LABELS)}
    flow = sorted(found.labels.items(), key=lambda item: (order[item[0][0]], order[item[0][1]]))
    lines += [f"          {number:,} {one} → {other}" for (one, other), number in flow if one != other]
    for name, rate in found.rates.items():
        ends = "" if rate.interval is None else f" ({100 * rate.interval.low:+.2f} to {100 * rate.interval.high:+.2f})"
        lines.append(
            f"{name}: {rate.before:.2%} → {rate.after:.2%}: {100 * rate.difference:+.2f} points{ends}, "
            f"{found.confidence:.0%} interval, faces of one image alike"
        )
    return lines
