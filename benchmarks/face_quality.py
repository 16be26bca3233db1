"""Measures how well a contestant's boxes and labels match the annotations of photographs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from maskdet.evaluation.annotation_matching import locate, read_annotations
from maskdet.evaluation.annotations import AnnotatedImage
from maskdet.evaluation.detection_matching import SeenImage
from maskdet.evaluation.detection_metrics import FoundFaces, match_by_centre, match_by_overlap
from maskdet.evaluation.faces import FROM_PX, RANGES, UNMATCHED_PER_IMAGE, estimate_faces, gather
from maskdet.evaluation.intervals import Bootstrap, Estimate
from maskdet.evaluation.settings import TruthSettings

_BANDS = {suffix: size for suffix, size in RANGES.items() if suffix and suffix != f"_from_{FROM_PX:g}_px"}
_RESAMPLES = 400
_COLUMNS = ("image_uri", "face_left_px", "face_top_px", "face_width_px", "face_height_px", "face_score", "label")


@dataclass(frozen=True)
class Quality:
    """Figures of a contestant, with intervals from a bootstrap over photographs."""

    found: Mapping[str, Estimate]
    unmatched: Estimate
    end_to_end: Estimate

    @property
    def bands(self) -> tuple[str, ...]:
        """Sizes of faces, as column headings."""
        return tuple(f"{low:g}–{high:g} px" if np.isfinite(high) else f"≥ {low:g} px" for low, high in _BANDS.values())

    def cells(self) -> list[str]:
        """Figures as cells of a table: found, by band; then unmatched boxes; then found and labelled right."""
        return [*(_share(one) for one in self.found.values()), _share(self.unmatched, 2), _share(self.end_to_end)]


@dataclass(frozen=True)
class Truth:
    """Annotated faces of photographs.

    Attributes:
        images: name of a photograph in the scored folder → its faces, in pixels of the original.
        scales: name → width of the photograph relative to the original's.
        groups: name → path of the original; photographs made from one original are not independent.
    """

    images: Mapping[str, AnnotatedImage]
    scales: Mapping[str, float]
    groups: Mapping[str, str]

    def compare(self, output: Path) -> Quality:
        """Measure the faces in a contestant's output: a Parquet file, or the tables of a run."""
        found = read_found(output)
        seen = []
        for name, truth in self.images.items():
            faces = found.get(name, FoundFaces(np.empty((0, 4), np.float32), np.empty(0, np.float32), ()))
            faces = faces._replace(boxes=faces.boxes / np.float32(self.scales[name]))
            match, overlapping = (
                matching(faces, truth.boxes, truth.ignored) for matching in (match_by_centre, match_by_overlap)
            )
            rows = np.arange(len(match))
            seen.append(SeenImage(name, self.groups[name], 0, 0, "", truth, faces, rows, match, overlapping))
        estimates = estimate_faces(gather(seen), Bootstrap(resamples=_RESAMPLES))
        return Quality(
            {band: estimates[f"found{band}"] for band in _BANDS},
            estimates[UNMATCHED_PER_IMAGE],
            estimates[f"end_to_end_from_{FROM_PX:g}_px"],
        )


def read_truth(boxes: str, folder: Path, originals: Mapping[str, tuple[Path, float]], faces: str) -> Truth:
    """The annotations of photographs.

    Args:
        boxes: annotations, in any form that ``truth.boxes`` takes.
        folder: the photographs that are scored.
        originals: name in the folder → the original, and the photograph's width relative to the original's.
        faces: further classes that are faces, separated by commas.
    """
    from PIL import Image, ImageOps

    known = TruthSettings()
    more = tuple(name for name in faces.split(",") if name)
    ignore, incorrect = (tuple(name for name in names if name not in more) for names in (known.ignore, known.incorrect))
    settings = TruthSettings(boxes=boxes, face=(*known.face, *more), ignore=ignore, incorrect=incorrect)
    uris = {str(original) for original, _ in originals.values()}
    truths = locate(read_annotations(settings), uris).truths
    images = {}
    for name, (original, _) in originals.items():
        if (truth := truths.get(str(original))) is not None:
            if truth.in_shares:
                with Image.open(original) as image:
                    truth = truth.in_pixels(*ImageOps.exif_transpose(image).size)
            images[name] = truth
    return Truth(
        images,
        {name: scale for name, (_, scale) in originals.items()},
        {name: str(original) for name, (original, _) in originals.items()},
    )


def read_found(output: Path) -> dict[str, FoundFaces]:
    """File name of a photograph → the faces found in it."""
    tables = output / "predictions"
    files = sorted(tables.rglob("*.parquet")) if tables.is_dir() else [output]
    parts = []
    for path in files:
        with pq.ParquetFile(path) as file:
            parts.append(file.read(list(_COLUMNS)).cast(_schema()))
    if not parts:
        return {}
    by_name: dict[str, list[dict[str, float | str]]] = defaultdict(list)
    for row in pa.concat_tables(parts).to_pylist():
        by_name[str(row["image_uri"]).rpartition("/")[2]].append(row)
    found = {}
    for name, rows in by_name.items():
        left, top, width, height, score = (np.array([row[one] for row in rows], np.float32) for one in _COLUMNS[1:6])
        edges = np.stack([left, top, left + width, top + height], axis=1)
        found[name] = FoundFaces(edges, score, tuple(str(row["label"]) for row in rows))
    return found


def _schema() -> pa.Schema:
    texts = ("image_uri", "label")
    return pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in _COLUMNS])


def _share(one: Estimate, decimals: int = 3) -> str:
    if one.value is None or one.low is None or one.high is None:
        return "—"
    return f"{one.value:.{decimals}f} ({one.low:.{decimals}f}–{one.high:.{decimals}f})"
