"""An HTTP proxy that behaves like a store on a bad day: it refuses, stalls, breaks off, or answers too late."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

_OBJECT_NAME = re.compile(rb'"name": ?"([^"]+)"')
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


@dataclass(frozen=True)
class Fault:
    """What happens to the requests that a plan matches.

    Attributes:
        status: answered in the store's place; 0 to ask the store.
        delay_s: waited before the store is asked, in seconds.
        first: done before the store is asked.
        answer_share: of the answer's body that is sent; then the connection ends.
        stall_s: waited, in seconds, in place of the rest of such a body.
        upload_share: of the request's body that reaches the store; then both connections end.
        lost: whether the store's answer is never passed on, though the store did what was asked.
    """

    status: int = 0
    delay_s: float = 0.0
    first: Callable[[], object] | None = None
    answer_share: float = 1.0
    stall_s: float = 0.0
    upload_share: float = 1.0
    lost: bool = False


class Request(NamedTuple):
    """A request as it arrived."""

    at_s: float
    """When it arrived, in seconds of a monotonic clock."""
    method: str
    target: str
    """Path and query, unquoted, followed by the object's name for uploads to Google, which have it elsewhere."""
    fault: Fault | None
    """What happened to it; ``None``: it was passed on."""


# Headers that change every second for the same request.
_SIGNATURE = re.compile(r"[?&]X-Amz-[^&]*")


class _Plan:
    def __init__(self, method: str, target: str, fault: Fault, times: int, *, each: bool) -> None:
        self._matches = re.compile(f"{method}.*{target}").match
        self._fault = fault
        self._times = times
        self._each = each
        self._struck: dict[str, int] = {}

    def strike(self, line: str) -> Fault | None:
        if not self._matches(line):
            return None
        key = _SIGNATURE.sub("", line) if self._each else ""
        self._struck[key] = self._struck.get(key, 0) + 1
        return self._fault if self._struck[key] <= self._times else None


class FaultProxy:
    """Passes requests on to a server at a loopback address, except those that a plan matches.

    Args:
        upstream: the server's URL.

    Attributes:
        url: its own.
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._plans: list[_Plan] = []
        self._requests: list[Request] = []
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="proxy", daemon=True).start()

    def plan(self, method: str, target: str, fault: Fault, times: int = 1_000_000, *, each: bool = False) -> None:
        """Plan a fault for some requests; where several plans match, the first one wins.

        Args:
            method: pattern of the method, and perhaps of how the target begins.
            target: pattern to be found in path and query, unquoted.
            fault: what befalls them.
            times: how many are struck; later ones pass.
            each: whether to count for each method and target apart.
        """
        with self._lock:
            self._plans.append(_Plan(method, target, fault, times, each=each))

    def clear(self) -> None:
        """Forget all plans and requests."""
        with self._lock:
            self._plans, self._requests = [], []

    def requests(self, method: str = "", target: str = "") -> list[Request]:
        """The requests so far that a plan with these patterns would match."""
        with self._lock:
            return [
                found for found in self._requests if re.match(f"{method}.*{target}", f"{found.method} {found.target}")
            ]

    def stop(self) -> None:
        """Stop the proxy."""
        self._server.shutdown()
        self._server.server_close()

    def record(self, method: str, target: str) -> Fault | None:
        """Record a request; returns the fault planned for it, if any."""
        with self._lock:
            strikes = (plan.strike(f"{method} {target}") for plan in self._plans)
            fault = next((found for found in strikes if found is not None), None)
            self._requests.append(Request(time.monotonic(), method, target, fault))
        return fault

    def upstream(self) -> http.client.HTTPConnection:
        """A connection to the server."""
        return http.client.HTTPConnection(self._upstream, timeout=30)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that gave up waiting


class _Handler(BaseHTTPRequestHandler):
    owner: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        named = _OBJECT_NAME.search(body[:2000]) if self.path.startswith("/upload/") else None
        fault = (
            self.owner.record(self.command, unquote(self.path) + (f" {named[1].decode()}" if named else "")) or Fault()
        )
        if fault.upload_share < 1:
            self._cut_upload(body, fault.upload_share)
            return
        if fault.first:
            fault.first()
        time.sleep(fault.delay_s)
        if fault.status:
            self._send(fault.status, [("Content-Type", "text/plain")], b"" if self.command == "HEAD" else b"planned")
            return
        status, headers, answer = self._ask(body)
        if fault.lost:
            self.close_connection = True
        elif fault.answer_share < 1:
            self._send(status, headers, answer[: int(len(answer) * fault.answer_share)], length=len(answer))
            time.sleep(fault.stall_s)
            self.close_connection = True
        else:
            self._send(status, headers, answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815

    def _passed_headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = self.owner.upstream()
        try:
            connection.request(self.command, self.path, body or None, self._passed_headers())
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _cut_upload(self, body: bytes, share: float) -> None:
        connection = self.owner.upstream()
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self._passed_headers().items():
            connection.putheader(name, value)
        connection.endheaders(body[: int(len(body) * share)])
        connection.close()
        self.close_connection = True

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes, length: int | None = None) -> None:
        lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, 'Planned')}"]
        lines += [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
        asked = [value for name, value in headers if name.lower() == "content-length"]
        shown = asked[0] if self.command == "HEAD" and asked else str(len(body) if length is None else length)
        if status not in (204, 304):
            lines.append(f"Content-Length: {shown}")
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
