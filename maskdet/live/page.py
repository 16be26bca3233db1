"""A page on this machine alone, with the annotated picture (MJPEG) and the rate of the last hour."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from PIL import Image

from maskdet.loopback import JSON, LoopbackHandler, address_of, listen

_BOUNDARY = b"frame"
_QUALITY = 80
_PATIENCE_S = 5.0
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>maskdet watch</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style nonce="@nonce@">
body{font:16px system-ui,sans-serif;margin:1rem;background:#fff;color:#1f2937}
img{max-width:100%;height:auto}
</style>
<h1>maskdet watch</h1><p id="said" role="status">waiting for the first frame</p>
<img src="/stream.mjpg" alt="The newest frame, with a box and a label at each face">
<script nonce="@nonce@">
setInterval(async () => {
  const now = await (await fetch('/now.json')).json();
  const rate = now.mask_rate === null ? 'no labelled faces yet' : (100 * now.mask_rate).toFixed(1) + ' % wear a mask';
  document.getElementById('said').textContent =
    'last hour: ' + rate + '; latency ' + now.latency_ms + ' ms; ' + now.dropped + ' frames dropped';
}, 1000);
</script></html>
"""


class Page:
    """What the page shows."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0
        self._jpeg = b""
        self._now: dict[str, Any] = {"mask_rate": None, "latency_ms": None, "dropped": 0}
        self.closed = False

    def show(self, picture: Image.Image, now: dict[str, Any]) -> None:
        """Show a picture and what is said with it."""
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=_QUALITY)
        with self._changed:
            self._number, self._jpeg, self._now = self._number + 1, stream.getvalue(), now
            self._changed.notify_all()

    def close(self) -> None:
        """Let those who wait for a picture go."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def pictures(self) -> Iterator[bytes]:
        """Each picture from now on, as a JPEG; those who are slow miss some."""
        seen = 0
        while not self.closed:
            with self._changed:
                if self._number == seen:
                    self._changed.wait(_PATIENCE_S)
                seen, jpeg = self._number, self._jpeg
            if jpeg:
                yield jpeg

    @property
    def now(self) -> bytes:
        """What is said, as JSON."""
        return json.dumps(self._now).encode()


@contextmanager
def serving(page: Page, port: int) -> Iterator[str]:
    """Serve a page while the body runs, on this machine alone; gives its address.

    Args:
        page: what to serve.
        port: 0 for any that is free.

    Raises:
        ConfigError: the port is taken, or no port.
    """
    server = listen(type("Handler", (_Handler,), {"page": page}), port, "--page")
    threading.Thread(target=server.serve_forever, name="page", daemon=True).start()
    try:
        yield address_of(server)
    finally:
        page.close()
        server.shutdown()
        server.server_close()


class _Handler(LoopbackHandler):
    page: Page

    def get(self) -> None:
        """Answer with the page, what is said, or pictures without end."""
        if not self.is_ours:
            self.answer(HTTPStatus.FORBIDDEN, b"This address is not known here.")
        elif self.path == "/":
            self.answer_page(_PAGE, "'self'")
        elif self.path == "/now.json":
            self.answer(HTTPStatus.OK, self.page.now, JSON)
        elif self.path == "/stream.mjpg":
            self._stream()
        else:
            self.answer(HTTPStatus.NOT_FOUND, b"nothing here")

    def _stream(self) -> None:
        self.begin(HTTPStatus.OK, f"multipart/x-mixed-replace; boundary={_BOUNDARY.decode()}")
        try:
            for jpeg in self.page.pictures():
                head = b"--%s\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % (_BOUNDARY, len(jpeg))
                self.wfile.write(head + jpeg + b"\r\n")
        except OSError:  # whoever looked has gone
            return
