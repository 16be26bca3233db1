"""`maskdet preview` of a video: an MP4 of the frames that a run samples, with marked faces."""

from __future__ import annotations

import io
import shutil
import sys

import av
import numpy as np

from maskdet import children
from maskdet.cli.preview import main
from maskdet.video import isolated
from tests.cli.test_score_tracks import background, drawn
from tests.video import faulty_decoder
from tests.video.clips import Actor, film, numbered, play


def test_people_are_marked_in_the_frames_that_a_run_looks_at(tmp_path, capsys):
    actors = [Actor(drawn(3, False), (100, 100), (40, 0))]
    path = film(tmp_path / "street.mp4", play(actors, background(), 3.0), options={"crf": "18"})
    assert main([str(path), "--output", str(tmp_path / "previews"), "--faces", "detect"]) == 0
    said = capsys.readouterr().out
    [written] = (tmp_path / "previews").iterdir()
    assert f"6 frames: 6 faces, 1 people  {written.name}" in said
    with av.open(io.BytesIO(written.read_bytes())) as container:
        frames = list(container.decode(video=0))
    assert [round(frame.time, 2) for frame in frames] == [0.0, 0.52, 1.0, 1.52, 2.0, 2.52]
    first = frames[0].to_ndarray(format="rgb24")
    plain = background().astype(int)
    # The box of a bare face is vermilion, on a picture that is grey beside the face.
    vermilion = (np.abs(first.astype(int) - (213, 94, 0)).max(axis=2) < 60).sum()
    assert first.shape[:2] == (360, 640)
    assert vermilion > 100 > (np.abs(plain - (213, 94, 0)).max(axis=2) < 60).sum()


def test_what_is_no_video_costs_a_line_and_the_others_are_shown(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    film(tmp_path / "b.mp4", [numbered(1)] * 5)
    videos = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), str(tmp_path / "gone.mp4")]
    assert main([*videos, "--output", str(tmp_path / "p"), "--faces", "whole"]) == 3
    said = capsys.readouterr()
    assert "a.mp4  failed  not_a_video" in said.out
    assert "gone.mp4  failed  not_found" in said.out
    assert "b.mp4  1 frames: 1 faces" in said.out
    assert "videos: expected 3 that can be scored, received 1" in said.err
    assert [path.suffix for path in (tmp_path / "p").iterdir()] == [".mp4"]


def test_a_folder_is_previewed_with_its_images_and_videos(tmp_path, capsys, demo):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    film(folder / "deep" / "a.mp4", [numbered(1)] * 5)
    flags = ["--output", str(tmp_path / "p"), "--faces", "whole"]
    assert main([str(folder), *flags]) == 0
    assert "1 videos: 0 failed; 1 previews in" in capsys.readouterr().out
    shutil.copy(next(demo.folder.rglob("*.jpg")), folder / "b.jpg")
    assert main([str(folder), *flags]) == 0
    said = capsys.readouterr().out
    assert "1 images: 1 faces" in said and "1 videos: 0 failed" in said
    assert sorted(path.suffix for path in (tmp_path / "p").iterdir()) == [".jpg", ".mp4"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    assert main([str(tmp_path / "empty"), *flags]) == 3
    assert "expected images or videos" in capsys.readouterr().err


def test_a_decoder_that_crashes_costs_its_video_and_not_the_command(tmp_path, capsys, monkeypatch):
    pool = children.Children()
    monkeypatch.setattr(isolated, "CHILDREN", pool)
    monkeypatch.setattr(children, "COMMAND", (sys.executable, faulty_decoder.__file__, "abort"))
    film(tmp_path / "a.mp4", [numbered(number) for number in range(100)])  # 4 s, of which the last crashes
    film(tmp_path / "b.mp4", [numbered(1)] * 5)
    try:
        videos = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
        assert main([*videos, "--output", str(tmp_path / "p"), "--faces", "whole"]) == 3
    finally:
        pool.end()
    said = capsys.readouterr().out
    assert "a.mp4  failed  decoder_crashed" in said
    assert "b.mp4  1 frames: 1 faces" in said
