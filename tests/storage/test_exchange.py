"""One GET and its answer, as the standard library reads the same bytes."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading

import pytest

from maskdet.storage.exchange import exchange, request_bytes

BODY = bytes(range(256)) * 300
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
ANSWERS = {
    "usual": OK + LENGTH + b'ETag: "a"\r\n\r\n' + BODY,
    "empty": OK + b"Content-Length: 0\r\n\r\n",
    "refused": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nbody",
    "no reason": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + BODY,
    "padded fields": OK + b"Content-Length:  %d \r\nX: \ty z \r\n\r\n" % len(BODY) + BODY,
    "to be closed": OK + LENGTH + b"Connection: Close\r\n\r\n" + BODY,
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n3;x=y\r\n...\r\n0\r\n\r\n",
    "to the end": OK + b"X: y\r\n\r\n" + BODY,
    "1.0": b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "go on first": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + LENGTH + b"\r\n" + BODY,
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not changed": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
}
BROKEN = {
    "nothing": b"",
    "half a head": OK + b"Content-Le",
    "half a body": OK + LENGTH + b"\r\n" + BODY[:-7],
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "half a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nbody",
    "endless head": OK + b"X: " + b"y" * 400_000,
}


@contextlib.contextmanager
def answering(answer, piece_bytes=1 << 20):
    """A connection whose other end answers a request with these bytes, in pieces, and closes."""
    mine, theirs = socket.socketpair()
    asked = []

    def send():
        asked.append(theirs.recv(65536))
        with theirs, contextlib.suppress(OSError):  # a reader that has enough closes
            for start in range(0, len(answer), piece_bytes):
                theirs.sendall(answer[start : start + piece_bytes])

    thread = threading.Thread(target=send)
    thread.start()
    mine.settimeout(20)
    try:
        yield mine, asked
    finally:
        mine.close()
        thread.join()


def by_library(answer):
    with answering(answer) as (connection, _):
        connection.sendall(b"GET")
        with contextlib.closing(http.client.HTTPResponse(connection, method="GET")) as response:
            response.begin()
            fields = {name.lower(): value.strip() for name, value in response.headers.items()}
            return (response.status, fields, response.read()), not response.will_close


@pytest.mark.parametrize("piece_bytes", [1, 11, 1 << 20])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_read_as_the_library_reads_it(name, piece_bytes):
    answer = ANSWERS[name]
    if piece_bytes == 1:
        answer = answer.replace(BODY, BODY[:500]).replace(b"%d" % len(BODY), b"500")
    with answering(answer, piece_bytes) as (connection, asked):
        assert exchange(connection, b"GET") == by_library(answer)
        assert asked == [b"GET"]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_an_error_as_the_library_s(name):
    expected = http.client.IncompleteRead
    if name != "half a head":  # which the library takes for an empty object
        with pytest.raises(http.client.HTTPException) as raised:
            by_library(BROKEN[name])
        expected = type(raised.value)
    with answering(BROKEN[name]) as (connection, _), pytest.raises(expected):
        exchange(connection, b"GET")


def test_a_connection_that_says_more_than_announced_is_not_used_again():
    with answering(OK + b"Content-Length: 4\r\n\r\nbody and more") as (connection, _):
        answer, keeps = exchange(connection, b"GET")
    assert (answer.data, keeps) == (b"body", False)


def test_fields_that_are_sent_twice_are_joined():
    answer = OK + b"X-Goog-Hash: crc32c=a\r\nx-goog-hash: md5=b\r\nContent-Length: 0\r\n\r\n"
    with answering(answer) as (connection, _):
        assert exchange(connection, b"GET")[0].headers["x-goog-hash"] == "crc32c=a, md5=b"


def test_a_request_is_one_line_and_its_fields():
    sent = request_bytes("host:9000", "/bucket/a%20b?x=1", {"Accept-Encoding": "gzip"})
    assert sent == b"GET /bucket/a%20b?x=1 HTTP/1.1\r\nHost: host:9000\r\nAccept-Encoding: gzip\r\n\r\n"


@pytest.mark.parametrize(
    ("host", "target", "headers"),
    [
        ("h", "/a b", {}),
        ("h", "/a\r\nX: y", {}),
        ("h\nX: y", "/a", {}),
        ("h", "/a", {"X": "y\r\nZ: z"}),
        ("h", "/a", {"X\0": "y"}),
    ],
)
def test_nothing_can_be_slipped_into_a_request(host, target, headers):
    with pytest.raises(ValueError, match="no request"):
        request_bytes(host, target, headers)
