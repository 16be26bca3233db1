"""A local page for labelling a sample's faces: one person, by keyboard, saved at each key press.

Only this machine can reach it, and only those who know the token in its address. Faces are cut out of their images when
they are shown, and are stored nowhere. The person does not see what the model says.
"""

from __future__ import annotations

import hmac
import io
import json
import secrets
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import ThreadingHTTPServer

import pyarrow as pa

from maskdet.audit.labels import CHOICES, UNSURE, FaceKey, Labels, keys_of, read_labels, write_labels
from maskdet.errors import ConfigError
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.references import HIDDEN
from maskdet.labels import INCORRECT, MASK, NO_MASK
from maskdet.loopback import JPEG, JSON, NONCE, LoopbackHandler, address_of, listen
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
        token: those who know it may look and label.
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
        """The label of each face of the sample that has one."""
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

    def page(self) -> str:
        """The page, with :data:`maskdet.loopback.NONCE` in it."""
        choices = [{"label": name, "key": _KEYS[name], "text": _WORDS[name]} for name in _KEYS]
        return rendered("label.html.j2", token=self.token, nonce=NONCE, choices=choices)


def serve(session: LabelSession, port: int = 0) -> ThreadingHTTPServer:
    """A server for a session, on the loopback interface; the caller runs and closes it.

    Args:
        session: whose labels it takes.
        port: 0 chooses a free one.

    Raises:
        ConfigError: the port is taken, or is not a port.
    """
    return listen(type("Handler", (_Handler,), {"labelling": session}), port, "--port")


def address(server: ThreadingHTTPServer, session: LabelSession) -> str:
    """The page's address, including the token."""
    return address_of(server, f"{session.token}/")


class _Handler(LoopbackHandler):
    labelling: LabelSession

    def get(self) -> None:
        path = self._allowed()
        if path == "":
            self.answer_page(self.labelling.page(), "blob:")
        elif path == "state":
            self.answer(HTTPStatus.OK, json.dumps({"labels": self.labelling.given()}).encode(), JSON)
        elif path is not None and (number := self._number(path, "face/")) is not None:
            picture = self.labelling.picture(number)
            if isinstance(picture, str):
                self.answer(HTTPStatus.GONE, picture.encode())
            else:
                self.answer(HTTPStatus.OK, picture, JPEG)
        elif path is not None:
            self.answer(HTTPStatus.NOT_FOUND, b"nothing here")

    def post(self) -> None:
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
            self.answer(HTTPStatus.BAD_REQUEST, f"expected {expected}".encode())
            return
        self.labelling.put(number, label)
        self.answer(HTTPStatus.NO_CONTENT, b"")

    def _allowed(self) -> str | None:
        """The path after the token; for a stranger, or under another host's name, answers that nothing is there."""
        token, _, path = self.path.lstrip("/").partition("/")
        known = hmac.compare_digest(token.encode(), self.labelling.token.encode())
        if known and self.is_ours:
            return path
        self.answer(HTTPStatus.NOT_FOUND, b"nothing here")
        return None

    def _number(self, path: str, prefix: str) -> int | None:
        digits = path.removeprefix(prefix)
        if not path.startswith(prefix) or not digits.isascii() or not digits.isdigit() or len(digits) > 9:
            return None
        return int(digits) if int(digits) < len(self.labelling) else None
