"""Connections that are kept for reads of whole objects, bypassing the client libraries.

The libraries spend about 1 ms of a core on a read of 30 kB, more than decoding it takes. They still choose endpoints
and hold credentials, and they make all other requests.
"""

from __future__ import annotations

import os
import ssl
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPSConnection, RemoteDisconnected
from pathlib import Path
from urllib.parse import urlsplit

from maskdet.storage import stores
from maskdet.storage.exchange import Answer, exchange, request_bytes

# What a request gets on a connection that the store closed while it was idle.
_CLOSED_MEANWHILE = (RemoteDisconnected, BrokenPipeError, ConnectionResetError)


class Connections:
    """A pool of connections that threads may share; after a fork, its owner makes a new one.

    Args:
        certificates: environment variables that may name certificates to trust, as the library reads them.
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
        """Request an object's bytes as they are stored, once.

        Raises:
            http.client.HTTPException: the answer was incomplete.
            OSError: there was no answer.
        """
        scheme, _, rest = url.partition("://")  # a general parser takes longer than signing
        place, _, path = rest.partition("/")
        server = (scheme, place)
        host = place.removesuffix(":443" if scheme == "https" else ":80")
        # Accepting gzip keeps the store from unpacking text that is stored compressed.
        request = request_bytes(host, f"/{path}", {"Accept-Encoding": "gzip", **headers})
        kept = self._take(server)
        if kept is not None:
            try:
                return self._ask(server, kept, request)
            except _CLOSED_MEANWHILE:
                pass
        return self._ask(server, self._connect(server), request)

    def _ask(self, server: tuple[str, str], connection: HTTPConnection, request: bytes) -> Answer:
        try:
            answer, keeps = exchange(connection.sock, request)
        except BaseException:
            connection.close()
            raise
        if keeps:
            with self._lock:
                self._idle.setdefault(server, []).append(connection)
        else:
            connection.close()
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
    """Whether a store is reached without a proxy; proxies are left to the library."""
    parts = urlsplit(url)
    return parts.scheme not in urllib.request.getproxies() or bool(urllib.request.proxy_bypass(parts.hostname or ""))
