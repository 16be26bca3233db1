"""Rows and tracks of videos, byte for byte: however a video is cut, and however many workers share the segments."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS, TRACK_RATES, TRACKS
from tests.cli.test_score_tracks import background, drawn
from tests.video.clips import Actor, film, play

ROWS = (PREDICTIONS, FAILURES, NO_FACE, COMPLIANCE)
# Seconds of a segment → segments of the street, which is 6 s or 21 points of the grid long, and of the hall, 4 s or 14.
SEGMENTS = {1000: (1, 1), 3.1: (2, 2), 0.8: (7, 5)}
RATE = "video.frames_per_second=3.5"
WORKERS = {
    "1 worker": ("--direct_num_workers=1",),
    "2 threads": ("--direct_num_workers=2", "--direct_running_mode=multi_threading"),
    "3 threads": ("--direct_num_workers=3", "--direct_running_mode=multi_threading"),
    "2 processes": ("--direct_num_workers=2", "--direct_running_mode=multi_processing"),
}


def write_places(folder, images):
    """Two films, the second of which lacks its end, and images beside them."""
    actors = [
        Actor(drawn(2, False), (80, 90), (85, 0)),
        Actor(drawn(3, False), (560, 270), (-40, 0), (0.0, 3.0)),
        Actor(drawn(3, True), (440, 270), (-40, 0), (3.0, 6.0)),
    ]
    film(folder / "street.mp4", play(actors, background(), 6.0), gop=12)
    whole = film(folder / "hall.mkv", play([Actor(drawn(3, True), (320, 180), (20, 0))], background(1), 4.0), gop=12)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    for image in images:
        shutil.copy(image, folder / image.name)


def rows_of(output, table):
    """A table's rows as bytes, in an order that does not depend on the files."""
    found = output.table(table)
    order = ("image_uri", "frame_time_us", "face_index", "code")
    order = [name for name in order if name in found.column_names]
    found = found.sort_by([(name, "ascending") for name in order]) if order else found
    sink = pa.BufferOutputStream()
    plain = found.combine_chunks().replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain)
    return sink.getvalue().to_pybytes()


def files_of(output, *tables):
    """Names and bytes of tables' files."""
    found = [path for table in tables for path in sorted((output.folder / table).rglob("*.parquet"))]
    return {str(path.relative_to(output.folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def places(tmp_path_factory, demo):
    folder = tmp_path_factory.mktemp("places")
    write_places(folder, sorted(demo.folder.rglob("*.jpg"))[:2])
    return folder


@pytest.fixture(scope="module")
def scored(score, places, tmp_path_factory):
    """An output of the places for each cut and number of workers, made once."""
    made = {}

    def run(seconds, workers):
        if (seconds, workers) not in made:
            settings = (RATE, f"video.segment_seconds={seconds}", "packing.max_images=2", "failure_budget.max_ratio=1")
            flags = [part for setting in settings for part in ("--set", setting)]
            made[seconds, workers] = score(
                tmp_path_factory.mktemp("scored") / "t",
                places,
                template=None,
                faces="detect",
                flags=("--runner=FnApiRunner", *WORKERS[workers], *flags),
            )
        return made[seconds, workers]

    return run


@pytest.mark.parametrize("workers", [pytest.param("1 worker", marks=pytest.mark.thorough), "3 threads"])
@pytest.mark.parametrize("seconds", SEGMENTS)
def test_rows_and_tracks_are_the_same_bytes_for_1_2_and_7_segments(scored, seconds, workers):
    expected, output = scored(1000, "1 worker"), scored(seconds, workers)
    assert (expected.code, output.code) == (0, 0)
    assert output.run.videos.segments == sum(SEGMENTS[seconds])
    assert (output.run.images.listed, output.run.videos.listed) == (2, 2)
    assert output.run.videos.frames == 21 + 14
    for table in ROWS:
        assert rows_of(output, table) == rows_of(expected, table), table
    assert output.table(FAILURES).num_rows == 1
    assert output.table(PREDICTIONS).num_rows > 21
    assert files_of(output, TRACKS, TRACK_RATES) == files_of(expected, TRACKS, TRACK_RATES)
    assert len(files_of(output, TRACKS)) == 2


@pytest.mark.parametrize("workers", [pytest.param("2 threads", marks=pytest.mark.thorough), "3 threads", "2 processes"])
def test_all_files_are_the_same_for_any_number_of_workers(scored, workers, monkeypatch):
    # multi_processing starts `python` without a path.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    every = (*ROWS, TRACKS, TRACK_RATES)
    expected = files_of(scored(0.8, "1 worker"), *every)
    assert files_of(scored(0.8, workers), *every) == expected
    assert len([name for name in expected if name.startswith(PREDICTIONS)]) > 3
