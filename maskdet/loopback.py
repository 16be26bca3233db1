"""Small servers of pages for one person, on the loopback interface, that only answer their own pages.

Other pages in the same browser can send requests to this machine, and by DNS rebinding even under a name of their own.
So a request has to name this machine, and one that comes from a page has to come from the server's own.
"""

from __future__ import annotations

import secrets
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from maskdet.errors import ConfigError

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
_CLOSED = "default-src 'none'"

NONCE = "@nonce@"
"""Stands, in a page, for the nonce of its scripts and styles. No token has these characters."""

TEXT, HTML, JSON, JPEG = "text/plain; charset=utf-8", "text/html; charset=utf-8", "application/json", "image/jpeg"
"""Content types of answers."""


def listen(handler: type[LoopbackHandler], port: int, flag: str) -> ThreadingHTTPServer:
    """A server on the loopback interface; the caller runs and closes it.

    Args:
        handler: answers requests.
        port: 0 chooses a free one.
        flag: where the port was given.

    Raises:
        ConfigError: the port is taken, or is no port.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), handler)
    except (OSError, OverflowError) as error:  # taken, or no port at all
        raise ConfigError(flag, "a port that is free", port, "Choose another, or 0 for any.") from error
    server.daemon_threads = True
    return server


def address_of(server: ThreadingHTTPServer, path: str = "") -> str:
    """The address of a page of a server."""
    return f"http://{HOST}:{server.server_address[1]}/{path}"


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers requests, with headers that let nothing else read, frame or keep the answers."""

    def do_GET(self) -> None:
        """Answer a request for something."""
        self.get()

    def do_POST(self) -> None:
        """Answer a request to change something."""
        self.post()

    def get(self) -> None:
        """What a server answers to GET."""
        self.answer(HTTPStatus.NOT_FOUND, b"nothing here")

    def post(self) -> None:
        """What it answers to POST."""
        self.answer(HTTPStatus.NOT_FOUND, b"nothing here")

    @property
    def is_ours(self) -> bool:
        """Whether a request names this machine, and comes from a page of this server if it comes from one."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        return host.rpartition(":")[0] in _NAMES and origin in (None, f"http://{host}")

    def answer(self, status: HTTPStatus, body: bytes, kind: str = TEXT, policy: str = _CLOSED) -> None:
        """Answer a request.

        Args:
            status: of the answer.
            body: its content.
            kind: the content type.
            policy: what a page may load (Content-Security-Policy).
        """
        self.begin(status, kind, policy, {"Content-Length": str(len(body))})
        if body:
            self.wfile.write(body)

    def answer_page(self, page: str, images: str) -> None:
        """Answer with a page of HTML, in which :data:`NONCE` is replaced by a fresh nonce.

        Args:
            page: the page.
            images: where its images come from, such as ``'self'``.
        """
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"{_CLOSED}; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src {images}; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.answer(HTTPStatus.OK, page.replace(NONCE, nonce).encode(), HTML, policy)

    def begin(self, status: HTTPStatus, kind: str, policy: str = _CLOSED, more: dict[str, str] | None = None) -> None:
        """Send the head of an answer; its content is up to the caller."""
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: addresses may hold a token, and standard output belongs to the command."""
