"""One HTML page about two outputs over the same photographs: ``maskdet compare-runs``."""

from __future__ import annotations

from collections.abc import Sequence

from maskdet import __version__
from maskdet.errors import ConfigError
from maskdet.labels import LABELS
from maskdet.report.agreement import Agreement, Face, most_different
from maskdet.report.database import Tables
from maskdet.report.face_crops import crops_of_run
from maskdet.report.face_tiles import Tile, data_uri
from maskdet.report.marks import answer, shown_probability
from maskdet.report.templating import rendered
from maskdet.report.words import group_name, label_words

MOST_TILES = 120
"""Most faces on the page, which then stays below 1 MB."""

_SIDE_PX = 108


def render(old: Tables, new: Tables, found: Agreement, tiles: Sequence[Tile] = ()) -> str:
    """The page's HTML.

    Args:
        old: one output.
        new: the other.
        found: how they agree.
        tiles: faces to show.
    """
    labels = [label for label in LABELS if any(label in pair for pair in found.labels)]
    return str(
        rendered(
            "agreement.html.j2",
            found=found,
            labels=labels,
            outcomes=[name for name in ("scored", "no_face", "failed") if any(name in pair for pair in found.outcomes)],
            old={"root": old.layout.root, "run": old.run},
            new={"root": new.layout.root, "run": new.run},
            rate_words={"any_mask_rate": "wear a mask", "correct_rate": "wear one correctly"},
            tiles=tiles,
            version=__version__,
        )
    )


def read_tiles(old: Tables, count: int) -> list[Tile]:
    """Pictures of the faces on which the outputs differ most, read from their images at this moment.

    Raises:
        ConfigError: the count is out of range.
    """
    if not 1 <= count <= MOST_TILES:
        raise ConfigError("--faces", f"1 to {MOST_TILES}", count, "Look at some, then choose others.")
    faces = most_different(old, count)
    crops = crops_of_run(old.run, [face.row for face in faces], _SIDE_PX)
    return [
        Tile("" if isinstance(crop, str) else data_uri(crop), _caption(old, face, crop), face.label)
        for face, crop in zip(faces, crops, strict=True)
    ]


def _caption(old: Tables, face: Face, crop: object) -> str:
    label = face.row["label"]
    before = answer(label, label_words(label), f"{shown_probability(face.row):.2f}")
    after = f"{label_words(face.label)} (a mask: {face.worn:.2f})"
    place = group_name([face.row[key] for key in old.keys])
    return " · ".join(filter(None, [f"{before} → {after}", place, crop if isinstance(crop, str) else ""]))
