"""Reads of whole objects from Google Cloud Storage, with the library client's credentials, endpoint and headers."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple
from urllib.parse import quote

from maskdet.storage.connections import Connections
from maskdet.storage.exchange import Answer

_UNAUTHORIZED = 401


class Reads(NamedTuple):
    """What reads need; may be shared by threads."""

    connections: Connections
    client: Any
    """A ``google.cloud.storage.Client``."""
    authorize: Any
    """A ``google.auth.transport.Request``, with which credentials renew themselves."""

    @classmethod
    def of(cls, client: Any) -> Reads:
        """What a client's reads need."""
        from google.auth.transport.requests import Request

        return cls(Connections(("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")), client, Request())

    def get(self, bucket: str, key: str) -> bytes:
        """An object's bytes, as stored.

        Raises:
            google.api_core.exceptions.GoogleAPICallError: the store answers with something other than the object.
            http.client.HTTPException, OSError: there was no whole answer.
            ConnectionError: the bytes that arrived are not those that were sent.
            google.auth.exceptions.GoogleAuthError: the credentials cannot be used.
        """
        url = f"{self.client.api_endpoint}/download/storage/v1/b/{bucket}/o/{quote(key, safe='')}?alt=media"
        answer, credentials = self._ask(url), self.client._credentials
        if answer.status == _UNAUTHORIZED and credentials.token:  # which was revoked early
            credentials.refresh(self.authorize)
            answer = self._ask(url)
        if answer.status != 200:
            from google.api_core.exceptions import from_http_status

            said = answer.data[:200].decode("utf-8", "replace")
            raise from_http_status(answer.status, said)  # type: ignore[no-untyped-call]
        _check(answer)
        return answer.data

    def _ask(self, url: str) -> Answer:
        headers = dict(getattr(self.client._connection, "extra_headers", {}))
        self.client._credentials.before_request(self.authorize, "GET", url, headers)
        return self.connections.get(url, headers)


def _check(answer: Answer) -> None:
    """Refuse bytes whose CRC-32C is not the one that the store sent along, if it did."""
    for field in answer.headers.get("x-goog-hash", "").split(","):
        name, _, value = field.strip().partition("=")
        if name == "crc32c":
            import google_crc32c

            if google_crc32c.value(answer.data).to_bytes(4, "big") != base64.b64decode(value):
                raise ConnectionError("the bytes that arrived are not those that the store sent")
