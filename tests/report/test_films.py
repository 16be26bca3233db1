"""`maskdet preview` of a video: an MP4 whose frames are those that a run looks at, marked."""

from __future__ import annotations

import io

import av
import numpy as np

from maskdet.cli.preview import main
from tests.cli.test_score_tracks import background, drawn
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


def test_what_is_no_video_is_an_error_and_mixed_inputs_are_refused(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    assert main([str(tmp_path / "a.mp4"), "--output", str(tmp_path / "p")]) == 3
    assert "not_a_video" in capsys.readouterr().err
    film(tmp_path / "b.mp4", [numbered(1)] * 5)
    assert main([str(tmp_path / "b.mp4"), str(tmp_path / "c.jpg"), "--output", str(tmp_path / "p")]) == 2
