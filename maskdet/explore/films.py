"""Videos as browsers play them: in parts, by byte ranges, from this machine or from a store."""

from __future__ import annotations

import re
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from maskdet import storage
from maskdet.errors import StorageError
from maskdet.inputs.folders import extension_of
from maskdet.inputs.references import HIDDEN
from maskdet.report.marks import NAMELESS

MOST_BYTES = 1 << 20
"""Most bytes of one answer to a range request; players ask for the next range."""

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")
# The formats that browsers may play, by the names they use for them.
_KINDS = {"mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/mp4", "webm": "video/webm", "mkv": "video/webm"}


def film_response(request: Request, uri: str) -> Response:
    """A video, or the part of it that a request asks for.

    Args:
        request: its ``Range`` says which part: one byte range, as defined in RFC 9110.
        uri: of the video.
    """
    if uri.startswith(HIDDEN):
        return PlainTextResponse(f"{NAMELESS}\n", 410)
    try:
        size = storage.stat(uri).size_bytes
        headers = {"accept-ranges": "bytes"}
        kind = _KINDS.get(extension_of(uri), "application/octet-stream")
        asked = request.headers.get("range")
        if asked is None:
            return StreamingResponse(
                _pieces(uri, size), headers={**headers, "content-length": str(size)}, media_type=kind
            )
        span = _span(asked, size)
        if span is None:
            return PlainTextResponse("There is no such part.\n", 416, {"content-range": f"bytes */{size}"})
        with storage.open_binary(uri) as stream:
            stream.seek(span[0])
            data = stream.read(span[1] - span[0])
    except StorageError:
        return PlainTextResponse("The video cannot be read.\n", 410)
    headers["content-range"] = f"bytes {span[0]}-{span[0] + len(data) - 1}/{size}"
    return Response(data, 206, headers, kind)


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """The first byte requested, and the one after the last to send; ``None`` if there are none."""
    match = _RANGE.fullmatch(asked)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":  # the last so many
        start, end = max(0, size - int(match[2])), size
    else:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
    return None if start >= end else (start, min(end, start + MOST_BYTES))


def _pieces(uri: str, size: int) -> Iterator[bytes]:
    with storage.open_binary(uri) as stream:
        while size > 0 and (data := stream.read(min(size, MOST_BYTES))):
            size -= len(data)
            yield data
