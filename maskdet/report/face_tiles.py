"""Some faces of a selection as pictures within a page, read from their images at that moment."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image

from maskdet.errors import ConfigError
from maskdet.labels import LABELS
from maskdet.report.database import WORN, Selection, Tables, quoted
from maskdet.report.face_crops import crops_of_run
from maskdet.report.marks import answer, shown_probability
from maskdet.report.words import group_name, label_words

MOST_TILES = 24
"""Most faces of each label; a page with five such sections stays below 1 MB."""

_SIDE_PX = 108
_QUALITY = 80
_FACE = (
    *("image_uri", "content_sha256", "face_index", "face_left_px", "face_top_px", "face_width_px", "face_height_px"),
    *("probability_mask", "probability_incorrect", "label", "epoch_ms(captured_at) AS captured_at_ms"),
)


class Tile(NamedTuple):
    """A face on the page."""

    picture: str
    """As a data URI; empty if there is none, in which case the caption says why."""
    caption: str
    label: str


@dataclass(frozen=True)
class FaceSection:
    """Faces that have something in common."""

    title: str
    total: int
    tiles: Sequence[Tile]


def read_faces(tables: Tables, selection: Selection, count: int) -> list[FaceSection]:
    """Faces of each label, and those whose label is least sure, chosen by a hash of their content.

    Args:
        tables: an output's.
        selection: which faces.
        count: most faces of each kind, 1 to :data:`MOST_TILES`.

    Raises:
        ConfigError: the count is out of range.
    """
    if not 1 <= count <= MOST_TILES:
        raise ConfigError("--faces", f"1 to {MOST_TILES}", count, "Look at some, then choose others.")
    condition, values = tables.condition(selection)
    chance = "hash(content_sha256, face_index)"
    middle = tables.run.decision.middle
    kinds = [(label_words(label), f"label = '{label}'", chance) for label in LABELS]
    kinds.append(("least sure", "true", f"abs({WORN} - {middle!r})"))
    found = [
        (title, *_choose(tables, f"{condition} AND {kind}", values, f"{order}, image_uri, face_index", count))
        for title, kind, order in kinds
    ]
    rows = [row for _, _, chosen in found for row in chosen]
    crops = iter(crops_of_run(tables.run, rows, _SIDE_PX))
    return [
        FaceSection(title, total, [_tile(tables, row, next(crops)) for row in chosen])
        for title, total, chosen in found
        if chosen
    ]


def _choose(
    tables: Tables, condition: str, values: Sequence[object], order: str, count: int
) -> tuple[int, list[dict[str, Any]]]:
    keys = [quoted(key) for key in tables.keys]
    columns = ", ".join([*_FACE, tables.frame_time, *keys])
    total = tables.rows(f"SELECT count(*) FROM faces WHERE {condition}", values)[0][0]
    names = [*(column.split(" AS ")[-1] for column in _FACE), "frame_time_us", *tables.keys]
    query = f"SELECT {columns} FROM faces WHERE {condition} ORDER BY {order} LIMIT {count}"
    return total, [dict(zip(names, row, strict=True)) for row in tables.rows(query, values)]


def _tile(tables: Tables, row: dict[str, Any], crop: Image.Image | str) -> Tile:
    place = group_name([row[key] for key in tables.keys])
    when = tables.local_time(row["captured_at_ms"])
    tells_incorrect = row["probability_incorrect"] is not None
    probability = f"{shown_probability(row):.2f}"
    words = answer(row["label"], label_words(row["label"]), probability, tells_incorrect=tells_incorrect)
    texts = [words, place, f"{when:%Y-%m-%d %H:%M}" if when is not None else ""]
    if isinstance(crop, str):
        texts.append(crop)
    return Tile("" if isinstance(crop, str) else data_uri(crop), " · ".join(filter(None, texts)), row["label"])


def data_uri(picture: Image.Image) -> str:
    """A picture within a page, as JPEG."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
