"""Images with their faces marked, scored as a run scores them and drawn from the very bytes that were scored."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from PIL import Image

from maskdet import storage
from maskdet.config import ScoreSettings
from maskdet.errors import ConfigError, FailureCode, ImageFault, SourceError, StorageError
from maskdet.faces.extraction import FaceBox, Viewer
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.inputs.folders import extension_of
from maskdet.inputs.listing import ListTask, check_input, input_tasks, list_images
from maskdet.inputs.references import ImageRef, Shard
from maskdet.model.backends import Model
from maskdet.report.marks import GREY, STYLES, UNLABELLED, Place, Tag, answer, draw_tags, shown_probability
from maskdet.scoring.scorer import ScoreOptions, Scorer
from maskdet.video.sampling import UNCUT

MAX_SIDE_PX = 1600
"""Most pixels of a preview's longer side; a larger image is reduced."""

MIN_SIDE_PX = 480
"""Fewest pixels of a preview's longer side; a smaller image is enlarged, since text does not shrink."""

MIN_CANVAS_PX = (200, 48)
"""Room for one tag beside an image, however narrow."""

# Images scored together; their bytes are kept until they are drawn.
_CHUNK_IMAGES = 16
_TEXT_PX = range(14, 33)
_NAME_BYTES = 100
_JPEG_QUALITY = 92


class MarkedFace(NamedTuple):
    """A face and its label."""

    label: str
    probability: float
    """See :func:`maskdet.report.marks.probability_of`."""
    box: FaceBox | None
    """In pixels of the upright original; ``None`` where the whole image is the face."""
    score: float | None
    """The detector's score."""
    track: int | None = None
    """Number of the person in a video."""


class Preview(NamedTuple):
    """An image with its faces marked, or why there is none."""

    uri: str
    faces: tuple[MarkedFace, ...] = ()
    picture: Image.Image | None = None
    fault: ImageFault | None = None


class Previewer:
    """Scores images as a run does, and draws them.

    Args:
        model: gives each face's probability.
        options: limits and thresholds.
        viewer: finds the faces of an image; default: the image is one face.
        read: reads a file's bytes.
    """

    def __init__(
        self,
        model: Model,
        options: ScoreOptions,
        viewer: Viewer | None = None,
        *,
        read: Callable[[str], bytes] = storage.read_bytes,
    ) -> None:
        self._limits = options.limits
        self._keeper = _Keeper(read)
        self._scorer = Scorer(model, options, viewer, read=self._keeper)

    def previews(self, refs: Iterable[ImageRef]) -> Iterator[Preview]:
        """Preview images in order; a broken one gets a fault, and does not affect the others.

        Args:
            refs: images, each named once.
        """
        iterator = iter(refs)
        while chunk := tuple(itertools.islice(iterator, _CHUNK_IMAGES)):
            result = self._scorer.score_shard(Shard("preview", "", (), chunk))
            rows = defaultdict(list)
            for row in result.predictions.to_pylist():
                rows[row["image_uri"]].append(row)
            faults = {row["image_uri"]: _fault_of(row) for row in result.failures.to_pylist()}
            for ref in chunk:
                data = self._keeper.take(ref.uri)
                yield self._preview(ref.uri, data, rows[ref.uri], faults.get(ref.uri))

    def _preview(self, uri: str, data: bytes, rows: Sequence[dict[str, Any]], fault: ImageFault | None) -> Preview:
        if fault is not None:
            return Preview(uri, fault=fault)
        faces = tuple(_face_of(row) for row in rows)
        try:
            return Preview(uri, faces, draw_preview(data, faces, self._limits))
        except (
            ImageFault
        ) as later:  # decoded at another scale than for the model, a damaged JPEG may fail although it did not before
            return Preview(uri, fault=later)


class _Keeper:
    """Reads files and keeps their bytes until they are taken; may be called from several threads."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._kept: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def __call__(self, uri: str) -> bytes:
        data = self._read(uri)
        with self._lock:
            self._kept[uri] = data
        return data

    def take(self, uri: str) -> bytes:
        return self._kept.pop(uri, b"")


def find_images(settings: ScoreSettings, videos: frozenset[str]) -> list[ImageRef]:
    """The images that the settings' input names, each once, in the order given; those of a folder or glob are sorted.

    An image that is named itself is not looked up: reading it reports what is wrong with it, on its own line.

    Args:
        settings: of which input and output matter.
        videos: extensions of files that are videos; their references have a segment.

    Raises:
        ConfigError: there is no input, or the output lies in a folder of it.
        SourceError: a folder holds neither images nor videos, or a glob matches nothing.
        StorageError: a folder or glob cannot be listed.
    """
    output = storage.normalize(settings.output)
    found: dict[str, ImageRef] = {}
    for task in input_tasks(settings.input, settings.source):
        if task.kind == "folder" and f"{output}/".startswith(f"{task.uri.rstrip('/')}/"):
            # The next preview would show previews.
            raise ConfigError("--output", f"a place outside the input {task.uri}", output, "Choose one beside it.")
        for ref in _refs_of(task, settings, videos):
            found.setdefault(ref.uri, ref)
    if not found:
        what = "images or videos (.jpg, .png, .mp4, … in folders)" if videos else "images (.jpg, .png, … in folders)"
        raise SourceError("input", what, list(settings.input), "Name files, or set source.extensions.")
    return list(found.values())


def draw_preview(data: bytes, faces: Sequence[MarkedFace], limits: ImageLimits) -> Image.Image:
    """An image with its faces marked: :data:`MIN_SIDE_PX` to :data:`MAX_SIDE_PX` pixels on its longer side.

    Args:
        data: the image file's bytes.
        faces: the surest first; a face without a box is the whole image.
        limits: byte and pixel limits.

    Returns:
        RGB; grey where an image is too narrow for a tag.

    Raises:
        ImageFault: the image cannot be decoded.
    """
    image, upright = open_upright(data, limits, at_least=(MAX_SIDE_PX, MAX_SIDE_PX))
    return draw_faces(image, upright, faces)


def draw_faces(image: Image.Image, upright: tuple[int, int], faces: Sequence[MarkedFace]) -> Image.Image:
    """A decoded image with its faces marked; as :func:`draw_preview`.

    Args:
        image: RGB, upright.
        upright: width and height of the upright original, to whose pixels the boxes refer.
        faces: the surest first.
    """
    longer = max(upright)
    scale = min(max(longer, MIN_SIDE_PX), MAX_SIDE_PX) / longer
    width, height = (max(1, round(side * scale)) for side in upright)
    shown = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    canvas = Image.new("RGB", (max(width, MIN_CANVAS_PX[0]), max(height, MIN_CANVAS_PX[1])), GREY)
    canvas.paste(shown)
    tags = [Tag(_shown_box(face.box, scale, shown.size), *_words(face)) for face in faces]
    if not faces:
        tags = [Tag((0, 0, width, height), "no face found", UNLABELLED)]
    draw_tags(canvas, tags, line_px=max(3, round(max(shown.size) / 400)), text_px=_TEXT_PX)
    return canvas


def preview_name(uri: str, kind: Literal["jpeg", "png", "mp4"]) -> str:
    """The file name of an image's preview, made from its name and its URI's hash: no two images share one."""
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in PurePosixPath(uri).stem)
    short = stem.encode()[:_NAME_BYTES].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(uri.encode()).hexdigest()[:10]}.{'jpg' if kind == 'jpeg' else kind}"


def write_preview(folder: str, preview: Preview, kind: Literal["jpeg", "png"]) -> str:
    """Write a preview, atomically; returns where.

    Raises:
        StorageError: the folder cannot be written.
    """
    assert preview.picture is not None, f"{preview.uri}: nothing to write"
    stream = io.BytesIO()
    # Colour at full resolution: thin coloured lines would fade otherwise.
    options: dict[str, Any] = {"quality": _JPEG_QUALITY, "subsampling": "4:4:4"} if kind == "jpeg" else {}
    preview.picture.save(stream, kind, **options)
    uri = storage.join(folder, preview_name(preview.uri, kind))
    storage.write_bytes(uri, stream.getvalue())
    return uri


def _refs_of(task: ListTask, settings: ScoreSettings, videos: frozenset[str]) -> list[ImageRef]:
    if task.kind != "glob" or storage.has_glob(task.uri):
        storage.within_deadline(lambda: check_input(task, settings.source), task.uri)
        refs = [ref for batch in list_images(task, settings.source, videos) for ref in batch.refs]
        return refs if task.kind in ("list", "image_list") else sorted(refs)
    named = frozenset(settings.video.extensions)  # a video that is named itself is read, or refused with a reason
    try:
        refs = [ref for batch in list_images(task, settings.source, named) for ref in batch.refs]
    except StorageError:
        refs = []
    # As for sources: no table can hold the stand-ins for bytes that are not UTF-8.
    shown = task.uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    segment = UNCUT if extension_of(shown) in named else None
    return refs or [ImageRef(shown, -1, "", (None,) * len(settings.source.key_names), segment=segment)]


def _fault_of(row: dict[str, Any]) -> ImageFault:
    return ImageFault(FailureCode(row["code"]), row["message"], row["attempts"])


def _face_of(row: dict[str, Any]) -> MarkedFace:
    sides = [row[f"face_{name}_px"] for name in FaceBox._fields]
    box = None if sides[0] is None else FaceBox(*sides)
    return MarkedFace(row["label"], shown_probability(row), box, row["face_score"])


def _words(face: MarkedFace) -> tuple[str, Any]:
    number = "" if face.track is None else f"{face.track}: "
    return f"{number}{answer(face.label, face.label, f'{face.probability:.2f}')}", STYLES[face.label]


def _shown_box(box: FaceBox | None, scale: float, size: tuple[int, int]) -> Place:
    """A box in pixels of the preview; without a box, the whole preview."""
    if box is None:
        return 0, 0, *size
    left, top = round(box.left * scale), round(box.top * scale)
    return left, top, round((box.left + box.width) * scale), round((box.top + box.height) * scale)
