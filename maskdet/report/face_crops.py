"""The faces of prediction rows, read again from their sources, if they are still there."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from maskdet.config import ImagingSettings, ScoringSettings
from maskdet.cores import available_cores
from maskdet.errors import ImageFault
from maskdet.faces.crops import CropOptions, crop_face
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.inputs.references import HIDDEN, ImageRef
from maskdet.report.marks import CHANGED, GREY, NAMELESS, why_missing
from maskdet.report.video_frames import EVERY, frames_of, is_frame, read_frames
from maskdet.scoring.fetching import Fetcher
from maskdet.tables.run_records import RunRecord
from maskdet.video.sampling import Segment

# More than the classifier sees, so that people can see what surrounds a face.
_OPTIONS = CropOptions(margin=0.25, outside="grey")
# Each thread holds a whole decoded image.
_MOST_THREADS = 4

Crop = Image.Image | str
"""A picture, or why there is none."""


def crops_of_run(run: RunRecord, rows: Sequence[dict[str, Any]], side_px: int) -> list[Crop]:
    """As :func:`read_crops`, with the limits and tries of the run that made the rows."""
    # Of a run's settings, only these matter here.
    imaging = ImagingSettings.model_validate(run.settings.get("imaging", {}))
    scoring = ScoringSettings.model_validate(run.settings.get("scoring", {}))
    limits = ImageLimits.of(imaging, scoring.decoder_seconds)
    return read_crops(rows, limits, side_px, scoring.fetch_attempts, frames_of(run))


def read_crops(
    rows: Sequence[dict[str, Any]], limits: ImageLimits, side_px: int, fetch_attempts: int, frames: Segment = EVERY
) -> list[Crop]:
    """Cut faces out of their images and videos, reading each of those once.

    Args:
        rows: of the predictions; for images without a face, or whose face is the whole image, all of the image is
            shown.
        limits: byte and pixel limits.
        side_px: side of the square that a crop is; a whole image keeps its proportions.
        fetch_attempts: how often to try to read an image whose store answers with a transient error.
        frames: which frames of videos the run used.

    Returns:
        RGB ``side_px`` square, one per row; a text for an image that is gone, changed or cannot be read.
    """
    of_source = defaultdict(list)
    for index, row in enumerate(rows):
        # Two rows may have one URI and different contents, if the file was replaced while shards were scored.
        of_source[row["image_uri"], "" if is_frame(row) else row["content_sha256"]].append(index)
    fetcher = Fetcher(limits.max_bytes, fetch_attempts)
    crops: dict[int, Crop] = {}

    def cut(source: tuple[str, str]) -> None:
        (uri, content), indices = source, of_source[source]
        some = [rows[index] for index in indices]
        if uri.startswith(HIDDEN):
            found: list[Crop] = [NAMELESS] * len(some)
        elif content:
            found = _crops_of(uri, content, some, fetcher, limits, side_px)
        else:
            found = _of_video(some, frames, side_px, limits.isolated_s)
        crops.update(zip(indices, found, strict=True))

    with ThreadPoolExecutor(min(_MOST_THREADS, available_cores()), thread_name_prefix="crop") as pool:
        list(pool.map(cut, of_source))
    return [crops[index] for index in range(len(rows))]


def _of_video(
    rows: Sequence[dict[str, Any]], frames: Segment, side_px: int, decoder_seconds: float | None
) -> list[Crop]:
    """Crops of rows of one video; one of its frames is in memory at a time."""
    of_time = defaultdict(list)
    for index, row in enumerate(rows):
        of_time[row["frame_time_us"]].append(index)
    crops: dict[int, Crop] = {}
    wanted = {time_us: rows[indices[0]]["content_sha256"] for time_us, indices in of_time.items()}
    for time_us, frame in read_frames(rows[0]["image_uri"], wanted, frames, decoder_seconds):
        for index in of_time[time_us]:
            crops[index] = frame if isinstance(frame, str) else _crop(frame, rows[index], side_px)
    return [crops[index] for index in range(len(rows))]


def _crops_of(
    uri: str, content_sha256: str, rows: Sequence[dict[str, Any]], fetcher: Fetcher, limits: ImageLimits, side_px: int
) -> list[Crop]:
    try:
        data = fetcher.fetch(ImageRef(uri, -1, ""))
        if hashlib.sha256(data).hexdigest() != content_sha256:
            return [CHANGED] * len(rows)
        boxed = any(row.get("face_left_px") is not None for row in rows)
        image, _ = open_upright(data, limits, at_least=None if boxed else (side_px, side_px))
    except ImageFault as fault:
        return [why_missing(fault.code)] * len(rows)
    return [_crop(image, row, side_px) for row in rows]


def _crop(image: Image.Image, row: dict[str, Any], side_px: int) -> Image.Image:
    if row.get("face_left_px") is None:
        return _whole(image, side_px)
    left, top = row["face_left_px"], row["face_top_px"]
    box = np.array([left, top, left + row["face_width_px"], top + row["face_height_px"]], np.float32)
    unaligned = np.zeros((5, 2), np.float32)
    return Image.fromarray(crop_face(image, box, unaligned, side_px, side_px, _OPTIONS))


def _whole(image: Image.Image, side_px: int) -> Image.Image:
    """An image in its own proportions, within a grey square."""
    scale = side_px / max(image.size)
    size = [max(1, round(side * scale)) for side in image.size]
    square = Image.new("RGB", (side_px, side_px), GREY)
    inner = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    square.paste(inner, ((side_px - size[0]) // 2, (side_px - size[1]) // 2))
    return square
