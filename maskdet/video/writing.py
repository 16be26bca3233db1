"""Write pictures as a film for people to watch."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
import av.codec
import numpy as np

from maskdet.images.codecs import Pixels

# What browsers play if this build has the encoder, else what players play.
_ENCODERS = (("libx264", {"crf": "23", "preset": "veryfast", "threads": "1"}), ("mpeg4", {"qscale": "4"}))
_MILLISECOND = Fraction(1, 1000)


def encode_film(pictures: Iterable[tuple[int, Pixels]], rate: Fraction) -> bytes:
    """An MP4 made of pictures.

    Args:
        pictures: when each is shown, in microseconds, ascending, and uint8 RGB ``(height, width, 3)``, all of one size.
        rate: about how many there are per second.
    """
    file = io.BytesIO()
    stream: Any = None
    with av.open(file, "w", format="mp4") as container:
        for time_us, picture in pictures:
            even = np.ascontiguousarray(picture[: picture.shape[0] & ~1, : picture.shape[1] & ~1])
            if stream is None:
                name, options = next(one for one in _ENCODERS if one[0] in av.codec.codecs_available)
                stream = container.add_stream(name, rate=rate, options=options)
                stream.height, stream.width, stream.pix_fmt = even.shape[0], even.shape[1], "yuv420p"
                stream.codec_context.time_base = _MILLISECOND
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = time_us // 1000, _MILLISECOND
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return file.getvalue()
