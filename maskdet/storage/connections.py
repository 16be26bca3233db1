"""Kept connections for reads of whole objects, past the client libraries.

The libraries spend about 1 ms of a core on a read of 30 kB, more than decoding it takes; one GET over a kept connection
of the standard library's takes 0.06 ms. The libraries still choose endpoints and hold credentials, and they make all
other requests.
"""

from __future__ import annotations

import os
import ssl
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPMessage, HTTPSConnection, RemoteDisconnected
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from maskdet.storage import stores

# What a connection that the store closed while it was idle answers to the next request.
_CLOSED_MEANWHILE = (RemoteDisconnected, BrokenPipeError, ConnectionResetError)


class Answer(NamedTuple):
    """What a store answered, in full."""

    status: int
    headers: HTTPMessage
    """By name, in whatever case."""
    data: bytes


class Connections:
    """A pool of connections, for any number of threads; made anew in a forked process by whoever keeps it.

    Args:
        certificates: variables that may name a file or folder of certificates to trust, as the library reads them.
    """

    def __init__(self, certificates: Sequence[str]) -> None:
        self._idle: dict[tuple[str, str], list[HTTPConnection]] = {}
        self._lock = threading.Lock()
        import certifi

        trusted = next((os.environ[name] for name in certificates if os.environ.get(name)), certifi.where())
        folder = Path(trusted).is_dir()
        self._trust = ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)

    def __del__(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask once for an object's bytes as they are stored.

        Raises:
            http.client.HTTPException: there was no whole answer.
            OSError: there was none.
        """
        parts = urlsplit(url)
        server = (parts.scheme, parts.netloc)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        # Accepting gzip keeps the store from unpacking texts that are stored compressed.
        asked = {"Accept-Encoding": "gzip", **headers}
        kept = self._take(server)
        if kept is not None:
            try:
                return self._ask(server, kept, target, asked)
            except _CLOSED_MEANWHILE:
                pass
        return self._ask(server, self._connect(server), target, asked)

    def _ask(
        self, server: tuple[str, str], connection: HTTPConnection, target: str, headers: Mapping[str, str]
    ) -> Answer:
        try:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            with self._lock:
                self._idle.setdefault(server, []).append(connection)
        return answer

    def _take(self, server: tuple[str, str]) -> HTTPConnection | None:
        """An idle connection, the one used last, if there is any."""
        with self._lock:
            idle = self._idle.get(server)
            return idle.pop() if idle else None

    def _connect(self, server: tuple[str, str]) -> HTTPConnection:
        scheme, place = server
        if scheme == "https":
            connection: HTTPConnection = HTTPSConnection(place, timeout=stores.CONNECT_TIMEOUT_S, context=self._trust)
        else:
            connection = HTTPConnection(place, timeout=stores.CONNECT_TIMEOUT_S)
        connection.connect()
        connection.sock.settimeout(stores.READ_TIMEOUT_S)
        return connection


def are_direct(url: str) -> bool:
    """Whether a store is reached without a proxy, which is left to its library."""
    parts = urlsplit(url)
    return parts.scheme not in urllib.request.getproxies() or bool(urllib.request.proxy_bypass(parts.hostname or ""))
