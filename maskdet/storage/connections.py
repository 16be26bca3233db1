"""Kept connections for reads of whole objects, past the client libraries.

The libraries spend about 1 ms of a core on a read of 30 kB, more than decoding it takes; one GET over a kept connection
spends 0.3 ms. The libraries still choose endpoints and sign requests, and they make all other requests.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from maskdet.storage import stores

# Idle connections kept; more readers than that would make a new one for each read.
_CONNECTIONS = 256


class Answer(NamedTuple):
    """What a store answered, in full."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Connections:
    """A pool of connections, for any number of threads; made anew in a forked process by whoever keeps it.

    Args:
        certificates: variables that may name a file or folder of certificates to trust, as the library reads them.
    """

    def __init__(self, certificates: Sequence[str]) -> None:
        import certifi
        import urllib3

        trusted = next((os.environ[name] for name in certificates if os.environ.get(name)), certifi.where())
        trust: dict[str, Any] = {"ca_cert_dir" if Path(trusted).is_dir() else "ca_certs": trusted}
        self._pool = urllib3.PoolManager(
            maxsize=_CONNECTIONS,
            retries=False,  # `persist` and the fetcher try again
            timeout=urllib3.Timeout(connect=stores.CONNECT_TIMEOUT_S, read=stores.READ_TIMEOUT_S),
            **trust,
        )

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Ask once for an object's bytes as they are stored.

        Raises:
            urllib3.exceptions.HTTPError: there was no answer, or not a whole one.
        """
        # Accepting gzip keeps the store from unpacking texts that are stored compressed.
        asked = {"Accept-Encoding": "gzip", **headers}
        answer: Any = self._pool.request("GET", url, headers=asked, decode_content=False)
        return Answer(answer.status, answer.headers, answer.data)


def are_direct(url: str) -> bool:
    """Whether a store is reached without a proxy, which is left to its library."""
    parts = urlsplit(url)
    return parts.scheme not in urllib.request.getproxies() or bool(urllib.request.proxy_bypass(parts.hostname or ""))
