"""The newest frame of a live source: drops are counted, lost connections are restored, a film ends."""

from __future__ import annotations

import socket
import threading
import time
import weakref

import pytest

from maskdet.errors import ConfigError, FailureCode, ImageFault
from maskdet.live.capture import LONGEST_WAIT_S, Arrived, Capture, Source
from tests.video.clips import film, number_of, numbered

CAMERA = Source("rtsp://camera/stream", "stream")


def arrived(number):
    return Arrived(number, None, number * 40_000, 0.0)


class Waits:
    """Waits that take no time; after some of them, the test's source ends."""

    def __init__(self):
        self.seconds = []

    def __call__(self, seconds):
        self.seconds.append(seconds)


def test_a_frame_that_nobody_took_is_replaced_and_counted():
    taken, go_on = threading.Event(), threading.Event()

    def frames(source):
        yield from (arrived(number) for number in range(5))
        taken.set()
        go_on.wait(10)
        yield arrived(5)

    with Capture(Source("film.mp4", "file"), frames) as capture:
        taken.wait(10)
        assert capture.take(5).picture == 4
        assert (capture.counts.decoded, capture.counts.dropped) == (5, 4)
        go_on.set()
        assert capture.take(5).picture == 5
        assert capture.take(5) is None
        assert capture.ended
        assert capture.counts == (6, 4, 0)
    assert capture.fault is None


def test_a_stream_is_opened_again_after_ever_longer_waits_until_frames_come():
    tries, waits, done = [], Waits(), threading.Event()

    def frames(source):
        tries.append(source)
        if len(tries) in (1, 4):
            yield arrived(len(tries))
        if len(tries) > 12:
            done.set()
            yield from iter(lambda: arrived(0) if not capture._stop.is_set() else None, None)
        raise OSError("connection reset")

    capture = Capture(CAMERA, frames, wait=waits)
    with capture:
        assert done.wait(10)
    assert waits.seconds[:4] == [0.5, 1.0, 2.0, 0.5]
    assert waits.seconds[4:12] == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    assert capture.counts.reconnects == len(tries) - 1
    assert not capture._thread.is_alive()


def test_nothing_of_a_stream_that_broke_is_held_while_the_next_one_runs():
    class Decoder:
        """Keeps pictures back, as a real one does."""

    decoders, runs_again, done = [], threading.Event(), threading.Event()

    def frames(source):
        decoder = Decoder()
        decoders.append(weakref.ref(decoder))
        yield Arrived(decoder, None, 0, 0.0)
        if len(decoders) == 2:
            runs_again.set()
            done.wait(10)
        raise OSError("connection reset")

    with Capture(CAMERA, frames, wait=Waits()) as capture:
        assert runs_again.wait(10)
        assert [decoder() is None for decoder in decoders] == [True, False]
        capture._stop.set()
        done.set()


def test_a_film_that_breaks_ends_with_its_fault():
    def frames(source):
        yield arrived(1)
        raise ImageFault(FailureCode.NOT_A_VIDEO, "no video")

    with Capture(Source("film.mp4", "file"), frames) as capture:
        assert capture.take(5).picture == 1
        assert capture.take(5) is None
        assert capture.ended
    assert isinstance(capture.fault, ImageFault)


def test_a_film_is_played_at_its_own_pace(tmp_path):
    path = film(tmp_path / "a.mp4", [numbered(number) for number in range(10)])
    waits, now = Waits(), [0.0]
    seen = []
    capture = Capture(Source(str(path), "file"), clock=lambda: now[0], wait=waits)
    for frame in capture._decode(capture._source):
        seen.append(number_of(frame.picture.to_ndarray(format="rgb24")))
    assert seen == list(range(10))
    assert waits.seconds == pytest.approx([number * 0.04 for number in range(1, 10)])


@pytest.mark.parametrize(
    ("text", "kind"),
    [("rtsp://u:p@cam/1", "stream"), ("/dev/video0", "device"), ("a.mp4", "file"), ("./b:c.mkv", "file")],
)
def test_sources_are_told_apart(text, kind):
    assert Source.of(text).kind == kind


def test_passwords_are_not_shown_and_stores_are_refused():
    assert str(Source.of("rtsp://user:secret@camera:554/1")) == "rtsp://camera:554/1"
    with pytest.raises(ConfigError, match=r"expected a file, /dev/videoN, or a stream.*received 'gs://b/a.mp4'"):
        Source.of("gs://b/a.mp4")


def test_a_stream_that_is_cut_twice_goes_on(tmp_path):
    """A server that sends the same second of film to every client and hangs up."""
    data = film(tmp_path / "a.ts", [numbered(number) for number in range(25)]).read_bytes()
    server = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve():
        for _ in range(3):
            connection, _ = server.accept()
            connections.append(connection)
            with connection:
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    stopped = threading.Event()
    source = Source.of(f"tcp://127.0.0.1:{server.getsockname()[1]}")
    with server, Capture(source, wait=lambda seconds: stopped.wait(0.01) and None) as capture:
        deadline = time.monotonic() + 20
        while capture.counts.decoded < 75 and time.monotonic() < deadline:
            capture.take(0.1)
    assert len(connections) == 3
    assert capture.counts.decoded == 75
    assert capture.counts.reconnects >= 2


def test_a_fault_that_only_the_decoder_has_a_class_for_does_not_end_a_stream():
    """A camera that falls silent makes PyAV raise what is neither an OSError nor a ValueError."""
    import av.error

    told, tries = [], []

    def frames(source):
        tries.append(source)
        yield arrived(len(tries))
        if len(tries) < 3:
            raise av.error.ExitError(1414092869, "Immediate exit requested", source.uri)
        done.wait(10)

    done = threading.Event()
    camera = Source("rtsp://user:secret@camera/1", "stream")
    with Capture(camera, frames, wait=lambda seconds: None, told=lambda *said: told.append(said)) as capture:
        deadline = time.monotonic() + 20
        while capture.counts.decoded < 3 and time.monotonic() < deadline:
            capture.take(0.1)
        assert capture.counts.decoded == 3
        assert told == [("it said nothing for too long", 0.5)] * 2
        done.set()
    assert capture.fault is None


def test_why_a_stream_is_opened_again_is_told_without_its_address():
    told, done = [], threading.Event()
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()

    def tell(reason, seconds):
        told.append((reason, seconds))
        if len(told) == 2:
            done.set()

    with Capture(Source.of(f"tcp://user:secret@127.0.0.1:{port}"), wait=lambda seconds: None, told=tell):
        assert done.wait(20)
    assert told[:2] == [("Connection refused", 0.5 * 2), ("Connection refused", 0.5 * 4)]
