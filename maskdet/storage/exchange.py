"""One GET and its answer over an open connection, in HTTP/1.1.

The standard library parses headers as those of e-mail, which takes half of what a read of a small image costs. Usual
answers, which state their length, are read here; the library reads all others.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Mapping
from http.client import HTTPResponse, IncompleteRead, LineTooLong, RemoteDisconnected
from typing import Any, NamedTuple, cast

_HEAD_END = b"\r\n\r\n"
_RECEIVED_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 256 * 1024


class Answer(NamedTuple):
    """What a store answered, in full."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    data: bytes


def request_bytes(host: str, target: str, headers: Mapping[str, str]) -> bytes:
    """A GET as it is sent.

    Raises:
        ValueError: a line break or space would turn it into another request.
    """
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if " " in target or any(character in line for line in lines for character in "\r\n\0"):
        raise ValueError(f"no request can be made of {target!r} and {dict(headers)!r}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def exchange(connection: socket.socket, request: bytes) -> tuple[Answer, bool]:
    """Send a request and read its answer.

    Returns:
        The answer, and whether the connection may be used again.

    Raises:
        http.client.HTTPException: the answer was incomplete.
        OSError: there was no answer.
    """
    connection.sendall(request)
    received = connection.recv(_RECEIVED_BYTES)
    while (end := received.find(_HEAD_END)) < 0:
        more = connection.recv(_RECEIVED_BYTES)
        if not more:
            raise IncompleteRead(received) if received else RemoteDisconnected("the connection ended without an answer")
        received += more
        if len(received) > _MAX_HEAD_BYTES:
            raise LineTooLong("head")
    version_status, *lines = received[:end].decode("latin-1").split("\r\n")
    version, status = version_status[:9], version_status[9:12]
    headers = _headers(line.partition(":")[::2] for line in lines)
    length = headers.get("content-length", "")
    if not (version == "HTTP/1.1 " and status.isdigit() and _has_body(int(status)) and length.isdigit()) or (
        "transfer-encoding" in headers
    ):
        return _by_library(connection, received)
    parts, missing = [received[end + len(_HEAD_END) :]], int(length) - (len(received) - end - len(_HEAD_END))
    while missing > 0:
        parts.append(connection.recv(min(missing, _RECEIVED_BYTES)))
        missing -= len(parts[-1])
        if not parts[-1]:
            raise IncompleteRead(b"".join(parts), missing)
    keeps = missing == 0 and headers.get("connection", "").lower() != "close"
    return Answer(int(status), headers, b"".join(parts)[: int(length)]), keeps


def _has_body(status: int) -> bool:
    return status >= 200 and status not in (204, 304)


def _headers(fields: Any) -> dict[str, str]:
    """Fields by name; fields that are sent several times are joined, as HTTP allows."""
    joined: dict[str, str] = {}
    for name, value in fields:
        known, given = name.lower(), value.strip()
        joined[known] = f"{joined[known]}, {given}" if known in joined else given
    return joined


def _by_library(connection: socket.socket, received: bytes) -> tuple[Answer, bool]:
    response = HTTPResponse(cast(socket.socket, _Resumed(connection, received)), method="GET")
    response.begin()
    answer = Answer(response.status, _headers(response.headers.items()), response.read())
    return answer, not response.will_close


class _Resumed(io.RawIOBase):
    """A connection from which bytes were already received; to the library it is both a socket and its stream."""

    def __init__(self, connection: socket.socket, received: bytes) -> None:
        self._connection, self._received = connection, received

    def makefile(self, mode: str) -> io.BufferedReader:
        """As a socket's method."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """As a stream's method."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As a stream's method."""
        if not self._received:
            return self._connection.recv_into(buffer)
        part, self._received = self._received[: len(buffer)], self._received[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
