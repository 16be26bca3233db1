"""A video with its faces marked by boxes, numbers of people and labels, in the frames that a run would use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskdet.config import ScoreSettings
from maskdet.errors import FailureCode, ImageFault
from maskdet.images.codecs import Pixels
from maskdet.inputs.videos import decoded_frames, video_info
from maskdet.report.marks import probability_of
from maskdet.report.previews import MarkedFace, draw_faces
from maskdet.scoring.predicting import FaceModel, FacePrediction
from maskdet.tracks.linking import NO_TRACK, LinkRule, link_faces
from maskdet.video.pictures import DecodedFrame
from maskdet.video.sampling import MICROSECONDS, OPEN_END, Grid, Segment


class FilmPreview(NamedTuple):
    """A video with its faces marked."""

    film: bytes
    """An MP4."""
    frames: int
    faces: int
    people: int
    """How many tracks there are."""


class _Looked(NamedTuple):
    """A frame that was used."""

    time_us: int
    size: tuple[int, int]
    faces: tuple[FacePrediction, ...]


def preview_film(uri: str, model: FaceModel, settings: ScoreSettings) -> FilmPreview:
    """Mark the faces of a video's frames, each person by one number.

    Decodes the video twice, once to score and once to draw, so that no frame has to be kept; in a process of its own,
    as scoring does.

    Args:
        uri: of the video.
        model: finds and labels faces in a frame.
        settings: which frames, and how faces become people.

    Raises:
        ImageFault: the video, or every frame of it, is unreadable.
        ConfigError: PyAV is not installed.
    """
    from maskdet.video.writing import encode_film  # needs PyAV; reading the video refuses if it is missing

    looked = [
        _Looked(time_us, (pixels.shape[1], pixels.shape[0]), model.predict([pixels])[0].faces)
        for time_us, pixels in _frames(uri, settings)
    ]
    if not looked:
        raise ImageFault(FailureCode.CORRUPT_VIDEO, "no frame of the video can be decoded")
    numbers = _numbers(looked, settings)
    film = encode_film(_drawn(uri, looked, numbers, settings), Fraction(*Grid.of(settings.video.frames_per_second)))
    faces = sum(len(frame.faces) for frame in looked)
    return FilmPreview(film, len(looked), faces, max((number for of in numbers for number in of), default=NO_TRACK) + 1)


def _frames(uri: str, settings: ScoreSettings) -> Iterator[tuple[int, Pixels]]:
    video, decoder_seconds = settings.video, settings.scoring.decoder_seconds
    end_us = OPEN_END if video.max_seconds is None else round(video.max_seconds * MICROSECONDS)
    grid, duration_us = Grid.of(video.frames_per_second), video_info(uri, decoder_seconds).duration_us
    segment = Segment(0, end_us, video.frames, (grid.numerator, grid.denominator), duration_us)
    for event in decoded_frames(uri, segment, decoder_seconds):
        if isinstance(event, DecodedFrame):
            if isinstance(event.pixels, ImageFault):
                raise event.pixels
            yield event.time_us, event.pixels


def _numbers(looked: Sequence[_Looked], settings: ScoreSettings) -> list[list[int]]:
    """The number of each face's track, frame by frame."""
    placed = [(frame.time_us, face.box, face.score) for frame in looked for face in frame.faces]
    if not placed or placed[0][1] is None:
        return [[NO_TRACK] * len(frame.faces) for frame in looked]
    rule = LinkRule(settings.tracks.max_gap_seconds, settings.tracks.sure_from)
    found = link_faces(
        np.array([time_us for time_us, _, _ in placed], np.int64),
        np.array([box for _, box, _ in placed], np.float64).reshape(-1, 4),
        np.array([score for _, _, score in placed], np.float64),
        rule,
        (float(looked[0].size[0]), float(looked[0].size[1])),
    )
    ends = np.cumsum([len(frame.faces) for frame in looked])
    return [part.tolist() for part in np.split(found, ends[:-1])]


def _drawn(
    uri: str, looked: Sequence[_Looked], numbers: Sequence[list[int]], settings: ScoreSettings
) -> Iterator[tuple[int, Pixels]]:
    size: tuple[int, int] | None = None
    for (time_us, pixels), frame, tracks in zip(_frames(uri, settings), looked, numbers, strict=True):
        faces = [_marked(face, track) for face, track in zip(frame.faces, tracks, strict=True)]
        picture = draw_faces(Image.fromarray(pixels), frame.size, faces)
        size = size or picture.size
        yield time_us, np.asarray(picture if picture.size == size else picture.resize(size))


def _marked(face: FacePrediction, track: int) -> MarkedFace:
    shown = probability_of(face.label, face.probabilities)
    return MarkedFace(face.label, shown, face.box, face.score, None if track == NO_TRACK else track)
