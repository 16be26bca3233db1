"""Segments of videos in a store: read by byte ranges, tried again, and accounted for where they cannot be read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import pytest

from maskdet import children, storage
from maskdet.children import Children
from maskdet.errors import NotFoundError, StorageError
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.references import ImageRef, RefBatch, Shard
from maskdet.inputs.sharding import KeyRule
from maskdet.inputs.videos import cut_videos
from maskdet.model.backends import Model
from maskdet.scoring.scorer import ScoreOptions, Scorer
from maskdet.sections import VideoSettings
from maskdet.storage import StoredFile
from maskdet.storage.stores import ObjectStream
from maskdet.testing import BrightnessBackend, brightness_model
from maskdet.video import isolated
from maskdet.video.sampling import UNCUT, Grid, cut
from tests.video.clips import film, numbered

URI = "mem://bucket/a.mp4"
FAULTY = str(Path(__file__).parents[1] / "video" / "faulty_decoder.py")


class MemoryStore:
    """A store with one object, which fails as often as the test says."""

    def __init__(self, data: bytes, failures: int = 0) -> None:
        self.data, self.failures = data, failures
        self.ranges: list[tuple[int, int]] = []

    def stat(self, uri: str) -> StoredFile:
        if uri != URI:
            raise NotFoundError(uri)
        return StoredFile(uri, len(self.data), "v1")

    def open(self, uri: str) -> object:
        return ObjectStream.buffered(len(self.data), self._range)

    def _range(self, start: int, end: int) -> bytes:
        if self.failures:
            self.failures -= 1
            raise StorageError(URI, "an answer", "none")
        self.ranges.append((start, end))
        return self.data[start:end]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "a.mp4"
    return film(path, [numbered(number) for number in range(100)]).read_bytes()


@pytest.fixture
def put(monkeypatch, data):
    def put(failures=0):
        store = MemoryStore(data, failures)
        monkeypatch.setitem(cast(dict, storage._STORES), "mem", store)
        return store

    return put


@pytest.fixture(params=[None, 20.0], ids=["here", "apart"])
def score(request):
    """Score the two segments of a video, whose decoder runs in this process or in one of its own."""

    def score(uri=URI, attempts=2, decoder_seconds=request.param):
        segments = cut(4_000_000, Grid(2, 1), "sampled", 2_000_000)
        refs = tuple(ImageRef(uri, 1, "v1", segment=segment) for segment in segments)
        limits = ImageLimits(isolated_s=decoder_seconds)
        options = ScoreOptions(KeyRule((), ()), limits=limits, fetch_attempts=attempts, threads=1)
        scorer = Scorer(brightness_model(), options, sleep=lambda seconds: None)
        return refs, scorer.score_shard(Shard("s", "i", (), refs))

    return score


def test_a_video_of_a_store_is_read_by_ranges(put, data, score):
    store = put()
    refs, result = score()
    assert result.predictions["frame_time_us"].to_pylist() == [
        second * 1_000_000 + half for second in range(4) for half in (0, 520_000)
    ]
    assert [result.segments[ref.name][0] for ref in refs] == [(4, 0, 0), (4, 0, 0)]
    assert store.ranges
    assert all(0 <= start < end <= len(data) for start, end in store.ranges)


def test_a_read_that_fails_in_passing_is_tried_again(put, score):
    put(failures=1)
    _, result = score()
    assert result.predictions.num_rows == 8
    assert result.failures.num_rows == 0


def test_segments_that_cannot_be_read_are_rows_that_the_next_run_tries_again(put, score):
    put(failures=1000)
    refs, result = score()
    rows = result.failures.to_pylist()
    assert [(row["code"], row["frame_time_us"], row["frame_end_us"], row["frames"]) for row in rows] == [
        ("read_error", 0, 2_000_000, 4),
        ("read_error", 2_000_000, 4_000_000, 4),
    ]
    assert [result.segments[ref.name][1] for ref in refs] == ["read_error", "read_error"]


def test_a_video_that_is_gone_is_not_found(put, score):
    put()
    _, result = score("mem://bucket/b.mp4")
    assert set(result.failures["code"].to_pylist()) == {"not_found"}


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("abort", "decoder_crashed", "the decoder of the video crashed: SIGABRT"),
        ("spin", "decode_timeout", "the decoder of the video was ended after scoring.decoder_seconds = 1"),
        ("sleep", "decode_timeout", "the decoder of the video was ended after scoring.decoder_seconds = 1"),
    ],
)
def test_a_decoder_that_breaks_costs_the_segment_that_it_was_at(put, score, monkeypatch, fault, code, message):
    put()
    own = Children()
    monkeypatch.setattr(isolated, "CHILDREN", own)
    monkeypatch.setattr(children, "COMMAND", (sys.executable, FAULTY, fault))
    monkeypatch.setattr(children, "_CLOCK_FACTOR", 3)
    refs, result = score(decoder_seconds=1.0)
    rows = result.failures.to_pylist()
    assert [(row["code"], row["message"], row["frame_time_us"], row["frames"]) for row in rows] == [
        (code, message, 2_000_000, 4)
    ]
    assert result.predictions["frame_time_us"].to_pylist() == [0, 520_000, 1_000_000, 1_520_000]
    assert [result.segments[ref.name] for ref in refs] == [((4, 0, 0), None), ((0, 0, 4), code)]
    own.end()


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_headers_are_read_apart_with_the_same_answers(content, data, tmp_path):
    good, bad = tmp_path / "good.mp4", tmp_path / "bad.mp4"
    good.write_bytes(data)
    bad.write_bytes(content)
    batch = RefBatch(tuple(ImageRef(str(path), 1, "v1", segment=UNCUT) for path in (good, bad)))
    settings = VideoSettings(segment_seconds=2.0)
    here, apart = (cut_videos(batch, settings, KeyRule((), ()), seconds) for seconds in (None, 20.0))
    assert apart == here
    assert len(here[0]) == 3


def test_a_frame_that_the_model_cannot_take_is_a_row_of_its_own(put):
    put()
    segment = cut(4_000_000, Grid(2, 1), "sampled", 9_000_000)[0]

    class Choosy(BrightnessBackend):
        """Refuses frames with an odd number: their last column is white."""

        def run(self, block):
            if (block[:, -2, -1] > 127).any():
                raise RuntimeError("odd")
            return super().run(block)

    choosy = Model(brightness_model().manifest, Choosy(), 8)
    options = ScoreOptions(KeyRule((), ()), fetch_attempts=1, threads=1)
    ref = ImageRef(URI, 1, "v1", segment=segment)
    result = Scorer(choosy, options).score_shard(Shard("s", "i", (), (ref,)))
    failed = result.failures.to_pylist()
    assert {row["code"] for row in failed} == {"inference_error"}
    # Frames 0, 13, 25, 38, 50, 63, 75 and 88 are looked at.
    assert [row["frame_time_us"] for row in failed] == [number * 40_000 for number in (13, 25, 63, 75)]
    assert all((row["frames"], row["frame_end_us"]) == (1, None) for row in failed)
    assert result.segments[ref.name] == ((4, 0, 4), "inference_error")
