"""A camera on loopback: MPEG-TS over TCP in real time; the connection can be cut and restored."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av

_RESET = struct.pack("ii", 1, 0)  # on, 0 s: closing sends a reset and drops unsent data


class Camera:
    """Sends a film to whoever connects, over and over, each frame when it is due.

    Every connection begins with the film's first frame, at time 0.

    Args:
        film: with a video stream.
        speed: how many times as fast as it was taken.
    """

    def __init__(self, film: Path, speed: float = 1.0) -> None:
        self._film, self._speed = film, speed
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connected_at: list[float] = []
        """Unix time at which each connection began."""
        self.sent = 0
        """Frames sent to all connections."""
        self._cut = self._silent = self._closed = False
        threading.Thread(target=self._accept, name="camera", daemon=True).start()

    @property
    def uri(self) -> str:
        """The address to give to `maskdet watch`."""
        return f"tcp://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset the connection in the middle of a packet; the next one is served."""
        self._cut = True

    def fall_silent(self) -> None:
        """Send nothing more on this connection, and leave it open; the next one is served."""
        self._silent = True

    def go_away(self) -> None:
        """Hang up, and refuse connections until :meth:`come_back`."""
        self._server.close()
        self._cut = True

    def come_back(self) -> None:
        """Listen again at the same address."""
        self._server = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, name="camera", daemon=True).start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = self._cut = True
        self._server.close()

    def _accept(self) -> None:
        server = self._server
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # closed
                return
            self._cut = self._silent = False
            self.connected_at.append(time.time())
            with contextlib.suppress(OSError), connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                for data in self._packets():
                    if self._cut:
                        connection.sendall(data[: len(data) // 2])
                        break
                    if self._silent:
                        connection.recv(1)  # until the other side gives up
                        break
                    connection.sendall(data)
                    self.sent += 1

    def _packets(self) -> Iterator[bytes]:
        """Yield the bytes of each frame when it is due."""
        started, passed = time.monotonic(), 0.0
        sink = io.BytesIO()
        with av.open(sink, "w", format="mpegts", options={"flush_packets": "1"}) as target:
            stream = None
            while True:
                with av.open(str(self._film)) as film:
                    source = film.streams.video[0]
                    stream = stream or target.add_stream_from_template(source)
                    frame_s = float(1 / source.average_rate)
                    ends = 0.0
                    for packet in film.demux(source):
                        if packet.dts is None:
                            continue
                        at = float((packet.pts - (source.start_time or 0)) * packet.time_base)
                        ends = max(ends, at + frame_s)
                        shift = round(passed / packet.time_base) - (source.start_time or 0)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        target.mux(packet)
                        data = sink.getvalue()
                        sink.seek(0)
                        sink.truncate()
                        time.sleep(max(0.0, started + (passed + at) / self._speed - time.monotonic()))
                        if data:
                            yield data
                    passed += ends
