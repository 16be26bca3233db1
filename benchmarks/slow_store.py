"""A store on loopback that answers slowly but uses little CPU, with enough of S3's protocol to list and read a folder.

    python -m benchmarks.slow_store --folder FOLDER --delay-ms 50      prints its URL, and ends when its input closes

It shares the machine's cores with the program that is measured, so it is not a full server: one thread, objects in
memory, some 0.1 ms per read. Objects are the folder's files, in the bucket ``images``.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "images"
PAGE = 1000
_CHANGED = "2026-01-01T00:00:00.000Z"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--delay-ms", type=float, required=True, help="added to each read of an object")
    given = parser.parse_args()
    objects = {path.name: path.read_bytes() for path in sorted(given.folder.iterdir())}
    asyncio.run(_serve(objects, given.delay_ms / 1000))


async def _serve(objects: Mapping[str, bytes], delay_s: float) -> None:
    tags = {key: hashlib.md5(data).hexdigest() for key, data in objects.items()}
    server = await asyncio.get_running_loop().create_server(
        lambda: Conversation(objects, tags, delay_s), "127.0.0.1", 0, backlog=256
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()  # unlike `async with`, which from Python 3.12.1 on waits for clients that keep their connections


class Conversation(asyncio.Protocol):
    """One connection: requests without bodies, each answered before the next is sent."""

    def __init__(self, objects: Mapping[str, bytes], tags: Mapping[str, str], delay_s: float) -> None:
        self._objects, self._tags, self._delay_s = objects, tags, delay_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer when a request is complete; reads of objects, signed or not, after the delay."""
        self._received += data
        if not self._received.endswith(b"\r\n\r\n"):
            return
        method, target, _ = self._received.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        self._received = b""
        status, body = answer(target, self._objects, self._tags)
        name = object_name(target)
        parts = [_head(status, len(body), self._tags.get(name, ""))] + ([] if method == "HEAD" else [body])
        if method == "GET" and name:
            asyncio.get_running_loop().call_later(self._delay_s, self._send, parts)
        else:
            self._send(parts)

    def _send(self, parts: list[bytes]) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(parts)


def object_name(target: str) -> str:
    """The key that a request's target names; empty for the bucket itself."""
    return unquote(urlsplit(target).path).removeprefix(f"/{BUCKET}").removeprefix("/")


def answer(target: str, objects: Mapping[str, bytes], tags: Mapping[str, str]) -> tuple[int, bytes]:
    """Status and body for a request.

    Args:
        target: path and query.
        objects: bytes by key, in the order of the keys.
        tags: entity tag by key.
    """
    key = object_name(target)
    if key:
        return (200, objects[key]) if key in objects else (404, _error("NoSuchKey"))
    query = parse_qs(urlsplit(target).query)
    if "list-type" not in query:
        return 501, _error("NotImplemented")
    prefix, after = query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
    keys = [key for key in objects if key.startswith(prefix) and key > after]
    return 200, _listing(keys[:PAGE], objects, tags, more=len(keys) > PAGE)


def _listing(keys: list[str], objects: Mapping[str, bytes], tags: Mapping[str, str], *, more: bool) -> bytes:
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>{_CHANGED}</LastModified>"
        f"<ETag>&quot;{tags[key]}&quot;</ETag><Size>{len(objects[key])}</Size></Contents>"
        for key in keys
    )
    token = f"<NextContinuationToken>{keys[-1]}</NextContinuationToken>" if more else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>{BUCKET}</Name><KeyCount>{len(keys)}</KeyCount>'
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
    ).encode()


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()


def _head(status: int, length: int, tag: str) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {length}", "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"]
    lines += [f'ETag: "{tag}"'] if tag else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


if __name__ == "__main__":
    main()
