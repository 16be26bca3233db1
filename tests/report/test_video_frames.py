"""Faces of videos, read again from the very frame that was scored; missing or changed videos are reported."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

from maskdet.images.preprocessing import ImageLimits
from maskdet.report import video_frames
from maskdet.report.face_crops import read_crops
from maskdet.report.marks import CHANGED, GONE
from maskdet.report.video_frames import NO_DECODER, read_frames
from maskdet.video.frames import SampledFrame, read_segment
from maskdet.video.pictures import upright_rgb
from maskdet.video.reading import open_video, read_info
from maskdet.video.sampling import OPEN_END, Grid, Segment, cut
from tests.video.clips import film, number_of, numbered


@pytest.fixture(scope="module", params=["a.mp4", "a.avi", "a.ts"])
def scored(request, tmp_path_factory):
    """A film of twenty seconds, and its frames in the tables: time → SHA-256."""
    path = tmp_path_factory.mktemp("films") / request.param
    codec = "mpeg4" if request.param.endswith("avi") else "libx264"
    film(path, [numbered(number % 250) for number in range(500)], codec=codec, gop=50)
    with open_video(str(path)) as video:
        [segment] = cut(read_info(video).duration_us, Grid.of(2), "sampled", 10**15)
        frames = [event for event in read_segment(video, segment) if isinstance(event, SampledFrame)]
    return path, {one.time_us: hashlib.sha256(upright_rgb(one, None).data).hexdigest() for one in frames}


@pytest.mark.parametrize("decoder_seconds", [None, 20.0])
def test_frames_are_those_that_were_scored_wherever_they_are(scored, decoder_seconds):
    path, known = scored
    assert len(known) == 40
    chosen = {time_us: known[time_us] for time_us in sorted(known)[3::9]}  # near each other, and far apart
    looked = Segment(0, OPEN_END, "sampled", (2, 1))
    found = dict(read_frames(str(path), chosen, looked, decoder_seconds))
    assert {time_us: number_of(np.asarray(frame)) for time_us, frame in found.items()} == {
        time_us: time_us // 40_000 % 250 for time_us in chosen
    }


def test_a_frame_that_is_another_now_or_not_there_is_no_picture(scored, tmp_path):
    path, known = scored
    times = sorted(known)
    wrong = {times[2]: known[times[2]], times[5]: "0" * 64, times[5] + 7: known[times[5]]}
    found = dict(read_frames(str(path), wrong))
    assert not isinstance(found[times[2]], str)
    assert (found[times[5]], found[times[5] + 7]) == (CHANGED, CHANGED)
    assert dict(read_frames(str(tmp_path / "gone.mp4"), {0: ""})) == {0: GONE}
    (tmp_path / "text.mp4").write_text("no video" * 100)
    assert dict(read_frames(str(tmp_path / "text.mp4"), {0: ""})) == {0: "unreadable: not_a_video"}


def test_crops_of_images_and_frames_come_in_the_order_of_their_rows(scored, tmp_path, demo):
    path, known = scored
    image = tmp_path / "a.jpg"
    shutil.copy(next(demo.folder.rglob("*.jpg")), image)
    times = sorted(known)
    sides = dict(zip([f"face_{side}_px" for side in ("left", "top", "width", "height")], (4, 4, 16, 16), strict=True))

    def row(time_us):
        return {"image_uri": str(path), "content_sha256": known[time_us], "frame_time_us": time_us, **sides}

    of_image = {"image_uri": str(image), "content_sha256": hashlib.sha256(image.read_bytes()).hexdigest()}
    rows = [row(times[30]), {**of_image, "frame_time_us": None}, row(times[1]), {**row(times[2]), "content_sha256": ""}]
    crops = read_crops(rows, ImageLimits(), 48, 1)
    assert [crop if isinstance(crop, str) else crop.size for crop in crops] == [(48, 48)] * 3 + [CHANGED]
    # The red corner of every frame.
    for crop in (crops[0], crops[2]):
        red = np.asarray(crop)[24, 24].astype(int)
        assert red[0] > 180 and red[1] < 70 and red[2] < 70


def test_without_the_decoder_the_reason_is_said(scored, monkeypatch):
    monkeypatch.setattr(video_frames, "is_installed", lambda: False)
    path, known = scored
    assert set(dict(read_frames(str(path), known)).values()) == {NO_DECODER}
