"""`maskdet score` on videos: accounting in videos and frames, hostile files, and rows that do not depend on the cut."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from maskdet.inputs import videos
from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS
from tests.video.clips import film, numbered, sound

LENIENT = ("--set", "failure_budget.max_ratio=1")
ALL_TABLES = (PREDICTIONS, FAILURES, NO_FACE, COMPLIANCE)


def cut_into(seconds):
    return ("--set", f"video.segment_seconds={seconds}")


def rows(output, table):
    """A table's rows, sorted, as bytes."""
    found = output.table(table)
    order = [name for name in ("image_uri", "frame_time_us", "face_index", "code") if name in found.column_names]
    found = found.sort_by([(name, "ascending") for name in order]) if order else found
    found = found.combine_chunks().replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema) as writer:
        writer.write_table(found)
    return sink.getvalue().to_pybytes()


def textured(frames, seed=1):
    texture = np.random.default_rng(seed).integers(0, 255, (96, 400, 3), dtype=np.uint8)
    return [np.ascontiguousarray(texture[:, number : number + 160]) for number in range(frames)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, demo):
    """Videos of several kinds, one with a hole, two images, and a file that is not a video."""
    folder = tmp_path_factory.mktemp("mixed")
    film(folder / "a.mp4", [numbered(number) for number in range(180)])
    film(folder / "b.webm", [numbered(number) for number in range(60)], codec="libvpx-vp9", options={"cpu-used": "8"})
    whole = film(folder / "c.mkv", textured(150)).read_bytes()
    (folder / "c.mkv").write_bytes(whole[: len(whole) // 2])
    images = sorted(path for path in demo.folder.rglob("*.jpg"))[:2]
    for image in images:
        shutil.copy(image, folder / image.name)
    (folder / "zero.mp4").touch()
    sound(folder / "sound.mp4")
    half = (folder / "a.mp4").read_bytes()
    (folder / "half.mp4").write_bytes(half[: len(half) // 2])
    (folder / "text.mkv").write_text("no video\n" * 1000)
    (folder / "program.ts").write_text("const answer: number = 42;\n")
    with (folder / "sparse.mp4").open("wb") as stream:
        stream.truncate(3 * 1024**3)
    return folder


@pytest.fixture(scope="module")
def scored(mixed, score, tmp_path_factory):
    return score(tmp_path_factory.mktemp("scored") / "tables", mixed, template=None, flags=(*LENIENT, *cut_into(1000)))


def test_every_video_and_every_frame_is_accounted_for(scored):
    run = scored.run
    assert scored.code == 0
    assert (run.images.listed, run.images.scored, run.images.skipped) == (3, 2, 1)
    assert run.skipped_by_reason == {"extension .ts, not a video": 1}
    counted = run.videos
    assert (counted.listed, counted.scored, counted.failed) == (8, 3, 5)
    assert counted.frames == counted.frames_scored + counted.frames_no_face + counted.frames_failed
    # 7.2 s, 2.4 s and 6 s, of which half is missing, at two frames a second.
    assert counted.frames == 15 + 5 + 12
    assert 4 <= counted.frames_failed <= 8
    predictions = scored.table(PREDICTIONS)
    assert predictions.num_rows == counted.frames_scored + 2
    [whole] = scored.table(COMPLIANCE).to_pylist()
    assert (whole["images_scored"], whole["images_failed"]) == (counted.frames_scored + 2, counted.frames_failed)


def test_hostile_files_cost_a_row_each(scored):
    failures = {os.path.basename(row["image_uri"]): row for row in scored.table(FAILURES).to_pylist()}
    codes = {name: row["code"] for name, row in failures.items()}
    assert codes == {
        "zero.mp4": "empty_file",
        "sound.mp4": "no_pictures",
        "half.mp4": "truncated_video",
        "text.mkv": "not_a_video",
        "sparse.mp4": "not_a_video",
        "c.mkv": "corrupt_video",
    }
    lost = failures["c.mkv"]
    assert 2_000_000 < lost["frame_time_us"] < 4_000_000
    assert lost["frame_end_us"] == pytest.approx(6_000_000, abs=100_000)
    assert lost["frames"] == scored.run.videos.frames_failed
    assert all(row["frames"] == 0 and row["frame_time_us"] is None for name, row in failures.items() if row != lost)


def test_rows_say_when_their_frame_is_shown(scored):
    times = {}
    for row in scored.table(PREDICTIONS).to_pylist():
        times.setdefault(os.path.basename(row["image_uri"]), []).append(row["frame_time_us"])
    # 25 frames a second: the first in the second half of a second comes after 13.
    assert sorted(times["a.mp4"]) == [second * 1_000_000 + half for second in range(8) for half in (0, 520_000)][:15]
    assert all(set(of) == {None} for name, of in times.items() if name.endswith(".jpg"))


@pytest.mark.parametrize("seconds", [4, 1])
def test_rows_do_not_depend_on_the_cut(mixed, score, scored, tmp_path, seconds):
    small = ("--set", "packing.max_images=2", "--direct_num_workers=2", "--direct_running_mode=multi_threading")
    runner = ("--runner=FnApiRunner", "--set", f"scoring.threads={seconds}")
    again = score(tmp_path / "t", mixed, template=None, flags=(*LENIENT, *cut_into(seconds), *small, *runner))
    assert again.code == 0
    assert again.run.videos.segments > scored.run.videos.segments
    assert again.run.shards["total"] > 1
    for table in ALL_TABLES:
        assert rows(again, table) == rows(scored, table), table
    ours, theirs = again.run.videos.model_dump(), scored.run.videos.model_dump()
    assert ours | {"segments": 0} == theirs | {"segments": 0}


def test_a_second_run_looks_at_nothing_and_a_new_cut_replaces_the_old(tmp_path, score):
    folder, output = tmp_path / "in", tmp_path / "t"
    folder.mkdir()
    film(folder / "a.mp4", [numbered(number) for number in range(100)])
    first = score(output, folder, template=None, flags=cut_into(1000))
    before = {table: rows(first, table) for table in ALL_TABLES}
    second = score(output, folder, template=None, flags=cut_into(1000))
    assert (second.run.images_scored_now, second.run.changes) == (0, {"unchanged": 1})
    assert second.run.videos == first.run.videos
    third = score(output, folder, template=None, flags=cut_into(1))
    assert (third.run.videos.segments, third.run.changes) == (4, {"changed": 1})
    assert {table: rows(third, table) for table in ALL_TABLES} == before
    denser = score(output, folder, template=None, flags=("--set", "video.frames_per_second=5"))
    assert denser.run.videos.frames == 20
    assert denser.table(PREDICTIONS).num_rows == 20
    (folder / "a.mp4").unlink()
    film(folder / "b.mp4", [numbered(number) for number in range(50)])
    last = score(output, folder, template=None)
    assert (last.run.videos.listed, last.run.dataset_videos.listed) == (1, 2)
    assert last.table(PREDICTIONS).num_rows == 20 + 4


def test_other_frames_of_a_video_stay_when_one_segment_is_scored_anew(tmp_path, score):
    """With a changed threshold, rows are relabelled and no frame is read."""
    film(tmp_path / "a.mp4", [numbered(number) for number in range(100)])
    first = score(tmp_path / "t", tmp_path / "a.mp4", template=None, flags=cut_into(1))
    again = score(
        tmp_path / "t", tmp_path / "a.mp4", template=None, flags=(*cut_into(1), "--set", "model.mask_from=0.999")
    )
    assert again.run.images_scored_now == 0
    assert again.table(PREDICTIONS).drop(["label"]) == first.table(PREDICTIONS).drop(["label"])


def test_a_dry_run_tells_videos_and_their_segments_from_images(tmp_path, score, demo, capfd):
    """25 frames a second in segments of 1 s: 100 frames are 4 segments, 50 frames 2."""

    def dry():
        capfd.readouterr()
        assert score(tmp_path / "t", folder, template=None, flags=(*cut_into(1), "--dry-run")).code == 0
        return [line for line in capfd.readouterr().out.splitlines() if line.split()[0] in ("images", "videos", "data")]

    (folder := tmp_path / "in").mkdir()
    shutil.copy(next(demo.folder.rglob("face-*.jpg")), folder)
    film(folder / "a.mp4", [numbered(number) for number in range(100)])
    assert score(tmp_path / "t", folder, template=None, flags=cut_into(1)).code == 0
    film(folder / "b.mp4", [numbered(number) for number in range(50)])
    assert dry() == [
        "  images      1 listed = 0 to score + 1 kept from earlier runs + 0 unreadable + 0 skipped",
        "  videos      2 listed, 2 of 6 segments to score",
        "  data set    would be 1 images and 2 videos: 1 added, 2 unchanged",
    ]
    (folder / "a.mp4").unlink()
    assert dry()[1:] == [
        "  videos      1 listed, 2 of 2 segments to score",
        "  data set    would be 1 images and 2 videos: 1 added, 1 unchanged, 1 gone whose rows stay",
    ]


def test_frames_are_dated_and_a_recording_over_midnight_lies_in_two_days(tmp_path, score):
    folder = tmp_path / "in" / "north"
    folder.mkdir(parents=True)
    film(folder / "2026-03-01T23-59-57.mp4", [numbered(number) for number in range(150)])
    template = "{site}/{captured_at:%Y-%m-%dT%H-%M-%S}.mp4"
    flags = ("--template", template, "--set", "compliance.levels={day: [site, date]}")
    outputs = [
        score(tmp_path / f"t{seconds}", tmp_path / "in", template=None, flags=(*flags, *cut_into(seconds)))
        for seconds in (1000, 1)
    ]
    for output in outputs:
        found = output.table(PREDICTIONS)
        assert found["captured_at"].to_pylist()[0] == datetime(2026, 3, 1, 23, 59, 57, tzinfo=UTC)
        days = found["date"].to_pylist()
        assert days == [date(2026, 3, 1)] * 6 + [date(2026, 3, 2)] * 6
        assert {path.parent.name for path in (output.folder / PREDICTIONS).rglob("*.parquet")} == {
            "date-2026-03-01",
            "date-2026-03-02",
        }
    assert rows(outputs[0], PREDICTIONS) == rows(outputs[1], PREDICTIONS)
    assert rows(outputs[0], COMPLIANCE) == rows(outputs[1], COMPLIANCE)


def test_a_list_dates_its_videos_and_max_seconds_ends_them(tmp_path, score):
    film(tmp_path / "a.mp4", [numbered(number) for number in range(150)])
    (tmp_path / "list.csv").write_text("uri,site,taken\na.mp4,n,2026-03-02T08:00:00\n")
    flags = (
        "--set",
        "source.keys=[site]",
        "--set",
        "source.captured_at_column=taken",
        "--set",
        "video.max_seconds=2.2",
    )
    output = score(tmp_path / "t", tmp_path / "list.csv", template=None, flags=flags)
    found = output.table(PREDICTIONS)
    assert found["frame_time_us"].to_pylist() == [0, 520_000, 1_000_000, 1_520_000, 2_000_000]
    assert found["captured_at"].to_pylist()[1] == datetime(2026, 3, 2, 8, 0, 0, 520_000, tzinfo=UTC)
    assert set(found["site"].to_pylist()) == {"n"}


def test_without_the_decoder_a_video_is_refused_by_name_and_skipped_in_a_folder(
    tmp_path, score, demo, monkeypatch, capsys
):
    from maskdet.cli import summary
    from maskdet.video import reading

    for module in (videos, summary, reading):
        monkeypatch.setattr(module, "is_installed", lambda: False)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"anything")
    shutil.copy(next(demo.folder.rglob("*.jpg")), folder)
    assert score(tmp_path / "t", folder / "a.mp4", template=None).code == 2
    assert "pip install 'maskdet[video]'" in capsys.readouterr().err
    assert score(tmp_path / "t", folder, template=None, flags=("--set", "video.mode=score")).code == 2
    assert "expected the package av where videos are read, received 'none'" in capsys.readouterr().err
    skipped = score(tmp_path / "t", folder, template=None)
    assert (skipped.code, skipped.run.skipped_by_reason, skipped.run.videos) == (0, {"extension .mp4": 1}, None)
    assert "pip install 'maskdet[video]'" in capsys.readouterr().out
