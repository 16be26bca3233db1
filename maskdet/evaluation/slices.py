"""Parts of the data: by image size, by faces found, by brightness and sharpness, by any column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from maskdet.evaluation.image_statistics import Looks
from maskdet.evaluation.metrics import Bools, Floats
from maskdet.evaluation.settings import SliceSettings
from maskdet.evaluation.truth import FACES_FOUND, column_values

ALL = "all"
OTHERS = "others"


class Slice(NamedTuple):
    """Some of the images."""

    name: str
    """Such as ``site=north``."""
    keep: Bools
    """Whether an image belongs to it, ``(images,)``."""


def cut(rows: pa.Table, settings: SliceSettings, looks: Looks | None = None) -> list[Slice]:
    """The whole data, then every slice that has an image.

    Args:
        rows: one row per image, with ``width_px``, ``height_px`` and the columns that settings name.
        settings: which slices to make.
        looks: brightness and sharpness, if measured.
    """
    slices = [Slice(ALL, np.ones(rows.num_rows, np.bool_))]
    slices += _by_size(rows, settings.size_px)
    slices += _by_faces(rows)
    if looks is not None:
        slices += _by_quarter("brightness", looks.brightness)
        slices += _by_quarter("sharpness", looks.sharpness)
    for column in settings.columns:
        slices += _by_value(column, column_values(rows, column), settings.max_values)
    return [piece for piece in slices if piece.name == ALL or piece.keep.any()]


def _by_size(rows: pa.Table, bounds: Sequence[int]) -> Iterator[Slice]:
    """By the image's shorter side: ``[low, high)``."""
    side = np.minimum(rows["width_px"].to_numpy(), rows["height_px"].to_numpy())
    edges = [0, *bounds]
    for low, high in zip(edges, [*bounds, None], strict=True):
        name = f"{low}+" if high is None else f"{low}-{high - 1}"
        yield Slice(f"shorter_side_px={name}", (side >= low) & (side < (np.inf if high is None else high)))


def _by_faces(rows: pa.Table) -> Iterator[Slice]:
    """Images with one face and with several, where both occur: of several, the largest may not be the one meant."""
    if FACES_FOUND not in rows.column_names:
        return
    several = rows[FACES_FOUND].to_numpy() > 1
    if several.any() and not several.all():
        yield Slice(f"{FACES_FOUND}=1", ~several)
        yield Slice(f"{FACES_FOUND}=2+", several)


def _by_quarter(name: str, values: Floats) -> Iterator[Slice]:
    known = values[np.isfinite(values)]
    if not len(known):
        return
    bounds = np.quantile(known, [0.25, 0.5, 0.75])
    quarter = np.where(np.isfinite(values), np.searchsorted(bounds, values, side="right"), -1)
    edges = [known.min(), *bounds, known.max()]
    for number in range(4):
        yield Slice(f"{name}={edges[number]:.4g} to {edges[number + 1]:.4g}", quarter == number)


def _by_value(column: str, values: Sequence[str | None], max_values: int) -> Iterator[Slice]:
    counts = Counter("null" if value is None else value for value in values)
    frequent = sorted(sorted(counts), key=lambda value: -counts[value])[:max_values]
    shown = np.array(["null" if value is None else value for value in values], np.object_)
    for value in sorted(frequent):
        yield Slice(f"{column}={value}", np.asarray(shown == value, np.bool_))
    if len(counts) > len(frequent):
        yield Slice(f"{column} {OTHERS}", ~np.isin(shown, frequent))
