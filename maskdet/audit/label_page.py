"""A page on this machine to label the faces of a sample in: keyboard, one person, saved at each key.

Only this machine can reach it, and only who knows the token in its address. Faces are cut out of their images when they
are shown, and kept nowhere. The person does not see what the model says.
"""

from __future__ import annotations

import hmac
import io
import json
import secrets
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa

from maskdet.audit.labels import CHOICES, UNSURE, FaceKey, Labels, keys_of, read_labels, write_labels
from maskdet.errors import ConfigError
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.references import HIDDEN
from maskdet.labels import INCORRECT, MASK, NO_MASK
from maskdet.report.face_crops import read_crops
from maskdet.report.templating import rendered
from maskdet.schemas import NOT_A_FACE

SIDE_PX = 384
_KEYS = {MASK: "m", INCORRECT: "i", NO_MASK: "n", NOT_A_FACE: "x", UNSURE: "u"}
_WORDS = {MASK: "Mask", INCORRECT: "Incorrect", NO_MASK: "No mask", NOT_A_FACE: "Not a face", UNSURE: "Unsure"}
_LONGEST_LABEL = 64


@dataclass
class LabelSession:
    """One person's work on a sample.

    Attributes:
        sample: as drawn.
        labels_uri: the person's file; labels in it are kept.
        limits: of images.
        fetch_attempts: tries to read an image.
        token: who knows it may look and label.
    """

    sample: pa.Table
    labels_uri: str
    limits: ImageLimits
    fetch_attempts: int = 4
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    labels: Labels = field(init=False)
    _faces: list[FaceKey] = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if any(uri.startswith(HIDDEN) for uri in self.sample["image_uri"].to_pylist()):
            remedy = "Nobody can be shown these faces. Sample an output whose names are plain (privacy.uri)."
            raise ConfigError("sample", "faces of images whose names are known", "hidden names", remedy)
        self.labels = read_labels(self.labels_uri, missing_ok=True)
        self._faces = keys_of(self.sample)

    def __len__(self) -> int:
        return len(self._faces)

    def given(self) -> list[str | None]:
        """The label of each face of the sample, where there is one."""
        return [self.labels.get(face) for face in self._faces]

    def put(self, number: int, label: str) -> None:
        """Label a face, and save."""
        with self._lock:
            self.labels[self._faces[number]] = label
            write_labels(self.labels_uri, self.labels)

    def picture(self, number: int) -> bytes | str:
        """A face as JPEG, or why it cannot be shown."""
        [row] = self.sample.slice(number, 1).to_pylist()
        [crop] = read_crops([row], self.limits, SIDE_PX, self.fetch_attempts)
        if isinstance(crop, str):
            return crop
        stream = io.BytesIO()
        crop.save(stream, "JPEG", quality=90)
        return stream.getvalue()

    def page(self, nonce: str) -> bytes:
        """The page."""
        choices = [{"label": name, "key": _KEYS[name], "text": _WORDS[name]} for name in _KEYS]
        return rendered("label.html.j2", token=self.token, nonce=nonce, choices=choices).encode()


def serve(session: LabelSession, port: int = 0) -> ThreadingHTTPServer:
    """A server of a session, on the loopback interface; the caller runs and closes it.

    Args:
        session: whose labels.
        port: 0 chooses a free one.

    Raises:
        ConfigError: the port is taken, or no port.
    """

    class Handler(_Handler):
        labelling = session

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:  # taken, or no port at all
        raise ConfigError("--port", "a port that is free", port, "Choose another, or 0 for any.") from error
    server.daemon_threads = True
    return server


def address(server: ThreadingHTTPServer, session: LabelSession) -> str:
    """Where the page is, token and all."""
    return f"http://127.0.0.1:{server.server_address[1]}/{session.token}/"


class _Handler(BaseHTTPRequestHandler):
    labelling: LabelSession

    def do_GET(self) -> None:
        path = self._allowed()
        if path == "":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src blob:; "
                "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
            self._answer(HTTPStatus.OK, self.labelling.page(nonce), "text/html; charset=utf-8", policy)
        elif path == "state":
            self._answer(HTTPStatus.OK, json.dumps({"labels": self.labelling.given()}).encode(), "application/json")
        elif path is not None and (number := self._number(path, "face/")) is not None:
            picture = self.labelling.picture(number)
            if isinstance(picture, str):
                self._answer(HTTPStatus.GONE, picture.encode(), "text/plain; charset=utf-8")
            else:
                self._answer(HTTPStatus.OK, picture, "image/jpeg")
        elif path is not None:
            self._answer(HTTPStatus.NOT_FOUND, b"nothing here", "text/plain; charset=utf-8")

    def do_POST(self) -> None:
        path = self._allowed()
        if path is None:
            return
        number = self._number(path, "label/")
        length = self.headers.get("Content-Length", "")
        label = ""
        if length.isdigit() and int(length) <= _LONGEST_LABEL:
            label = self.rfile.read(int(length)).decode("utf-8", "replace")
        if number is None or label not in CHOICES:
            expected = f"a face of the sample and one of {', '.join(CHOICES)}"
            self._answer(HTTPStatus.BAD_REQUEST, f"expected {expected}".encode(), "text/plain; charset=utf-8")
            return
        self.labelling.put(number, label)
        self._answer(HTTPStatus.NO_CONTENT, b"", "text/plain; charset=utf-8")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: addresses hold the token."""

    def _allowed(self) -> str | None:
        """The path behind the token; else answers that there is nothing, to a stranger or a name of another host."""
        token, _, path = self.path.lstrip("/").partition("/")
        host = self.headers.get("Host", "").rpartition(":")[0]
        origin = self.headers.get("Origin")
        known = hmac.compare_digest(token.encode(), self.labelling.token.encode())
        ours = host in ("127.0.0.1", "localhost") and (origin is None or origin == f"http://{self.headers['Host']}")
        if known and ours:
            return path
        self._answer(HTTPStatus.NOT_FOUND, b"nothing here", "text/plain; charset=utf-8")
        return None

    def _number(self, path: str, prefix: str) -> int | None:
        digits = path.removeprefix(prefix)
        if not path.startswith(prefix) or not digits.isascii() or not digits.isdigit() or len(digits) > 9:
            return None
        return int(digits) if int(digits) < len(self.labelling) else None

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, policy: str = "default-src 'none'") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(body)
