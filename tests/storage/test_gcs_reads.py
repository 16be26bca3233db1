"""Reads over our own connections: the right object, checked, with credentials that are refreshed."""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import google_crc32c
import pytest
from google.api_core.exceptions import Forbidden, ServiceUnavailable

from maskdet.storage.faults import is_transient, status_of
from maskdet.storage.gcs_reads import Reads

CONTENT = bytes(range(256)) * 40


class Credentials:
    """A token that a refresh replaces."""

    def __init__(self, token):
        self.token, self.refreshed = token, 0

    def before_request(self, request, method, url, headers):
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"

    def refresh(self, request):
        self.token, self.refreshed = "fresh", self.refreshed + 1


class Store:
    """A server with one answer, which records its requests."""

    def __init__(self):
        self.asked, self.status, self.crc32c, self.valid_token = [], 200, google_crc32c.value(CONTENT), None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_GET(self):
                owner.asked.append((unquote(urlsplit(self.path).path), dict(self.headers)))
                allowed = owner.valid_token in (None, self.headers.get("Authorization", "").removeprefix("Bearer "))
                status = owner.status if allowed else 401
                self.send_response(status)
                self.send_header("Content-Length", str(len(CONTENT)))
                digest = base64.b64encode(owner.crc32c.to_bytes(4, "big")).decode()
                self.send_header("X-Goog-Hash", f"md5=AAAA,crc32c={digest}")
                self.end_headers()
                self.wfile.write(CONTENT)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def reads(self, token=None):
        connection = SimpleNamespace(extra_headers={"x-goog-custom-audit-job": "run"})
        return Reads.of(SimpleNamespace(api_endpoint=self.url, _credentials=Credentials(token), _connection=connection))


@pytest.fixture
def store():
    server = Store()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.mark.parametrize("key", ["a.png", "folder/with space/ä#?.png", "a%2Fb", "+&="])
def test_the_object_is_asked_for_by_its_quoted_name(store, key):
    assert store.reads("token").get("bucket", key) == CONTENT
    [(path, headers)] = store.asked
    assert path == f"/download/storage/v1/b/bucket/o/{key}"
    assert headers["Authorization"] == "Bearer token"
    assert headers["x-goog-custom-audit-job"] == "run"


def test_bytes_that_differ_from_their_checksum_are_a_passing_fault(store):
    store.crc32c ^= 1
    with pytest.raises(ConnectionError) as caught:
        store.reads().get("bucket", "key")
    assert is_transient(caught.value)


@pytest.mark.parametrize(("status", "kind", "transient"), [(403, Forbidden, False), (503, ServiceUnavailable, True)])
def test_other_answers_are_the_clients_errors(store, status, kind, transient):
    store.status = status
    with pytest.raises(kind) as caught:
        store.reads().get("bucket", "key")
    assert (status_of(caught.value), is_transient(caught.value)) == (status, transient)


def test_a_token_that_was_taken_back_is_renewed_once(store):
    store.valid_token = "fresh"
    reads = store.reads("old")
    assert [reads.get("bucket", "key") for _ in range(2)] == [CONTENT] * 2
    assert reads.client._credentials.refreshed == 1
    assert len(store.asked) == 3
