"""From a decoded frame to upright 8-bit RGB.

- Colour: by the matrix and range that the stream names. Where it names none, BT.709 from 720 lines on and BT.601
  below; limited range, save in formats that are full by definition (MJPEG).
- Chroma is interpolated and rounding is exact: the same frame gives the same array on any processor.
- More than 8 bits are reduced to 8. HDR (PQ and HLG) becomes SDR as :mod:`maskdet.video.hdr` says.
- An interlaced frame keeps the field that comes first; the other lines are made from it and from the frames before and
  after (FFmpeg's yadif).
- Pixels that are not square are made square by changing the width. Then the picture is turned as its display matrix
says, by
  quarters of a turn. Transparency is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from maskdet.errors import FailureCode, ImageFault
from maskdet.images.codecs import Pixels
from maskdet.video.frames import LostStretch, SampledFrame, read_segment
from maskdet.video.hdr import TRANSFERS, to_sdr
from maskdet.video.reading import OpenVideo
from maskdet.video.sampling import Segment

_HD_LINES = 720
# FFmpeg's numbers of AVColorSpace, with swscale's names for them; 0 (RGB) and 2 (unspecified) have none.
_MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}
_FULL_RANGE = 2
_QUARTER_DEG = 90
_MOST_STRETCH = 4  # of a pixel's sides: beyond that, the header is wrong


class DecodedFrame(NamedTuple):
    """A decoded frame to use."""

    time_us: int
    """Since the start of the video, in microseconds."""
    pixels: Pixels | ImageFault
    """uint8 RGB ``(height, width, 3)``, upright, or why there are none."""


def decode_segment(
    video: OpenVideo, segment: Segment, alive: Callable[[], None] = lambda: None
) -> Iterator[DecodedFrame | LostStretch]:
    """As :func:`maskdet.video.frames.read_segment`, with the frames' pixels.

    Args:
        video: the file, just opened.
        segment: which part of it, and which frames.
        alive: called before each packet is decoded.
    """
    aspect = video.stream.sample_aspect_ratio
    for event in read_segment(video, segment, alive):
        if isinstance(event, LostStretch):
            yield event
            continue
        try:
            yield DecodedFrame(event.time_us, upright_rgb(event, aspect))
        except ImageFault as fault:
            yield DecodedFrame(event.time_us, fault)


def upright_rgb(frame: SampledFrame, aspect: Fraction | None) -> Pixels:
    """A frame's picture.

    Args:
        frame: as decoded.
        aspect: width of a pixel over its height, as the stream says; ``None`` where it does not.

    Returns:
        uint8 RGB ``(height, width, 3)``.

    Raises:
        ImageFault: there is no rule that turns the frame's pixels into RGB.
    """
    picture = _deinterlaced(frame) if frame.picture.interlaced_frame else frame.picture
    rgb = _rgb(picture, _square_width(picture.width, aspect))
    quarters = round(picture.rotation / _QUARTER_DEG) if picture.rotation % _QUARTER_DEG == 0 else 0
    return np.ascontiguousarray(np.rot90(rgb, quarters))


def _square_width(width: int, aspect: Fraction | None) -> int:
    if not aspect or aspect == 1 or not 1 / _MOST_STRETCH <= aspect <= _MOST_STRETCH:
        return width
    return max(1, round(width * aspect))


def _rgb(picture: Any, width: int) -> Pixels:
    """8-bit RGB of a frame, not rotated yet."""
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    hdr = picture.color_trc in TRANSFERS
    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
    full = picture.color_range == _FULL_RANGE or picture.format.name.startswith("yuvj")
    name = _MATRICES.get(picture.colorspace) or ("ITU709" if picture.height >= _HD_LINES else "ITU601")
    try:
        converted = picture.reformat(
            width=width,
            height=picture.height,
            format="rgb48le" if hdr else "rgb24",
            src_colorspace=Colorspace[name],
            dst_colorspace=Colorspace[name],
            interpolation=exact,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        array = converted.to_ndarray()
    except (ValueError, OSError) as error:
        message = f"pixel format {picture.format.name!r} has no conversion to 8-bit RGB"
        raise ImageFault(FailureCode.UNSUPPORTED_MODE, message) from error
    return to_sdr(array, picture.color_trc) if hdr else array


def _deinterlaced(frame: SampledFrame) -> Any:
    """The full picture of an interlaced frame, made with the help of its neighbours."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(template=None, **_shape(frame.picture))
    yadif = graph.add("yadif", "mode=send_frame:parity=auto:deint=all")
    sink = graph.add("buffersink")
    source.link_to(yadif)
    yadif.link_to(sink)
    graph.configure()
    for picture in (frame.before, frame.picture, frame.after):
        if picture is not None:
            source.push(picture)
    source.push(None)
    wanted = 0 if frame.before is None else 1
    made = [sink.pull() for _ in range(wanted + 1)]
    return made[wanted]


def _shape(picture: Any) -> dict[str, Any]:
    return {
        "width": picture.width,
        "height": picture.height,
        "format": picture.format,
        "time_base": picture.time_base,
    }
