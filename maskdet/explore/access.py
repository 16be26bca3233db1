"""Who may use the page: whoever holds the token, and only from the page itself.

Other pages in the same browser can send requests to a local server, and by DNS rebinding even under its address. So
each request has to name a host that is ours and carry a cookie that only the link with the token sets; one that changes
something has to come from our own page. Answers must not be framed, cached or mixed with code from elsewhere.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every answer. Pictures of people must not stay in a browser's cache."""


def _secret() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Gate:
    """What opens the page.

    Attributes:
        port: that the server listens on.
        hosts: names that requests may give it, without the port.
        token: part of the link that is printed.
        cookie: what a browser gets in exchange for the token.
    """

    port: int
    hosts: tuple[str, ...] = LOOPBACK
    token: str = field(default_factory=_secret)
    cookie: str = field(default_factory=_secret)

    @property
    def cookie_name(self) -> str:
        """The cookie's name, which has the port, because all ports of a host share cookies."""
        return f"maskdet-{self.port}"

    def link(self, host: str = LOOPBACK[0]) -> str:
        """The address that opens the page."""
        return f"http://{host}:{self.port}/?token={self.token}"

    def refusal(self, request: Request) -> Response | None:
        """The refusal of a request; ``None`` if it is to be answered."""
        host = request.headers.get("host", "")
        if host not in self._names():
            return PlainTextResponse("This address is not known here.\n", 421)
        if request.method not in ("GET", "HEAD") and request.headers.get("origin") != f"http://{host}":
            return PlainTextResponse("Only the page itself may change something.\n", 403)
        if not _same(request.cookies.get(self.cookie_name, ""), self.cookie):
            return PlainTextResponse("Open the link that maskdet explore printed.\n", 401)
        return None

    def welcome(self, request: Request) -> Response | None:
        """The answer to the link with the token; ``None`` for any other request."""
        if request.url.path != "/" or "token" not in request.query_params or request.method != "GET":
            return None
        if request.headers.get("host", "") not in self._names():
            return PlainTextResponse("This address is not known here.\n", 421)
        if not _same(request.query_params["token"], self.token):
            return PlainTextResponse("The token is wrong. Open the link that maskdet explore printed.\n", 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self.cookie_name, self.cookie, httponly=True, samesite="strict")
        return answer

    def _names(self) -> Iterable[str]:
        return [f"{host}:{self.port}" for host in self.hosts]


class Guarded:
    """An application behind a gate; adds :data:`HEADERS` to every answer.

    Args:
        app: what is guarded.
        gate: what opens it.
    """

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        request = Request(scope)
        answer = self._gate.welcome(request) or self._gate.refusal(request)
        await (self._app if answer is None else answer)(scope, receive, send_with_headers)


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
