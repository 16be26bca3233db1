"""Live output about frames, the page on this machine, and files by the minute."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskdet.cli.watch import main as watch_main
from maskdet.errors import ConfigError, ImageFault
from maskdet.faces.extraction import FaceBox
from maskdet.live import watching
from maskdet.live.capture import Arrived, Counts
from maskdet.live.minutes import Minutes
from maskdet.live.page import Page, serving
from maskdet.live.watching import LastHour, Observation
from maskdet.schemas import predictions_schema
from maskdet.scoring.predicting import FacePrediction, ImagePrediction
from maskdet.video.reading import open_video
from tests.video.clips import film, numbered

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 2, 8, 0, 30, tzinfo=UTC)


def face(label, probability=0.9):
    return FacePrediction(label, {"mask": probability, "no_mask": 1 - probability}, FaceBox(1, 2, 30, 40), 0.8)


def observation(seconds=0.0, labels=("mask",)):
    prediction = ImagePrediction(tuple(face(label) for label in labels), 64, 48, None)
    pixels = np.full((48, 64, 3), 7, np.uint8)
    return Observation(START + timedelta(seconds=seconds), 40_000, 0.1234, pixels, prediction, Counts(9, 4, 1))


def test_a_line_says_faces_latency_and_drops():
    line = json.loads(json.dumps(observation(labels=("mask", "no_mask")).line()))
    assert (line["latency_ms"], line["decoded"], line["dropped"], line["reconnects"]) == (123.4, 9, 4, 1)
    assert [one["label"] for one in line["faces"]] == ["mask", "no_mask"]
    assert line["faces"][0]["box"] == [1, 2, 30, 40]
    assert line["at"] == "2026-03-02T08:00:30.000+00:00"


def test_free_memory_is_given_back_between_frames(monkeypatch):
    said = []

    class Frames:
        counts, ended = Counts(), False

        def __init__(self):
            self._left = [Arrived(None, None, number, 0.0) for number in range(3)]

        def take(self, timeout_s):
            self.ended = len(self._left) <= 1
            return self._left.pop(0) if self._left else None

    class Model:
        def predict(self, images):
            said.append("looked")
            return [ImagePrediction((), 8, 8, None)]

    monkeypatch.setattr(watching, "GivingBack", lambda: lambda: said.append("gave back"))
    monkeypatch.setattr(watching, "upright_rgb", lambda frame, aspect: np.zeros((8, 8, 3), np.uint8))
    assert len(list(watching.watch(Frames(), Model(), 10.0, sleep=lambda seconds: None))) == 3
    assert said == ["gave back", "looked"] * 3 + ["gave back"]


def test_the_last_hour_forgets_what_came_before():
    now = [0.0]
    hour = LastHour(lambda: now[0])
    assert hour.mask_rate is None
    hour.add(observation(labels=("mask", "incorrect", "no_mask", "uncertain")).prediction)
    assert hour.mask_rate == pytest.approx(2 / 3)
    now[0] = 1800.0
    hour.add(observation(labels=("no_mask",)).prediction)
    assert hour.mask_rate == pytest.approx(2 / 4)
    now[0] = 3660.0
    assert hour.faces == {"no_mask": 1}


def test_each_minute_becomes_a_file_with_the_columns_of_predictions(tmp_path):
    minutes = Minutes(str(tmp_path), "rtsp://camera/1", "model@1")
    for seconds in (0, 10, 40):
        minutes.add(observation(seconds, ("mask", "no_mask")))
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["watch-20260302T0800Z.parquet"]
    minutes.flush()
    files = sorted((tmp_path / "predictions").iterdir())
    assert [path.name for path in files] == ["watch-20260302T0800Z.parquet", "watch-20260302T0801Z.parquet"]
    assert [pq.read_table(path).num_rows for path in files] == [4, 2]
    assert pq.read_schema(files[0]).equals(predictions_schema())
    [first, *_] = pq.read_table(files[1]).to_pylist()
    assert (first["image_uri"], first["label"], first["frame_time_us"]) == ("rtsp://camera/1", "mask", 40_000)


def test_the_page_is_on_this_machine_alone_and_shows_picture_and_rate():
    page = Page()
    with serving(page, 0) as address:
        assert address.startswith("http://127.0.0.1:")
        assert b"maskdet watch" in urllib.request.urlopen(address).read()
        page.show(Image.new("RGB", (32, 32), "red"), {"mask_rate": 0.5, "latency_ms": 80, "dropped": 3})
        assert json.load(urllib.request.urlopen(f"{address}now.json")) == {
            "mask_rate": 0.5,
            "latency_ms": 80,
            "dropped": 3,
        }
        with urllib.request.urlopen(f"{address}stream.mjpg") as stream:
            head = stream.read(200)
        assert head.startswith(b"--frame\r\nContent-Type: image/jpeg")
        assert b"\xff\xd8\xff" in head
        for request in (
            urllib.request.Request(address, headers={"Host": "evil.example:80"}),
            urllib.request.Request(f"{address}etc/passwd"),
        ):
            with pytest.raises(urllib.error.HTTPError, match=r"403|404") as caught:
                urllib.request.urlopen(request)
            caught.value.close()
        port = int(address.rsplit(":", 1)[1].strip("/"))
        for taken in (port, 65536):
            with pytest.raises(ConfigError, match="expected a port that is free"), serving(page, taken):
                pass


def test_a_film_is_watched_to_its_end(tmp_path, capsys):
    path = film(tmp_path / "a.mp4", [numbered(number) for number in range(25)])
    assert watch_main([str(path), "--parquet", str(tmp_path / "p"), "--set", "faces.mode=whole"]) == 0
    said = capsys.readouterr()
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert 1 <= len(lines) <= 12
    assert all(len(line["faces"]) == 1 and line["latency_ms"] > 0 for line in lines)
    assert "25 frames decoded" in said.err
    assert list((tmp_path / "p" / "predictions").glob("watch-*.parquet"))


def test_a_file_that_is_no_video_is_an_error(tmp_path, capsys):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    assert watch_main([str(tmp_path / "a.mp4")]) == 3
    assert "not_a_video" in capsys.readouterr().err


def test_a_path_that_holds_no_video_is_told_in_full(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("maskdet.cli.watch.load_face_model", lambda settings: pytest.fail("the model is loaded"))
    (tmp_path / "film.mp4").write_bytes(b"any")
    expected = "maskdet watch: SOURCE: expected a video file, /dev/videoN or a stream, received"
    for place, said in {
        tmp_path: f"'the folder {tmp_path}'. Name one video in it, or score the folder.",
        tmp_path / "flim.mp4": f"'{tmp_path}/flim.mp4'. Nothing is there; did you mean '{tmp_path}/film.mp4'?",
    }.items():
        assert watch_main([str(place)]) == 3
        assert capsys.readouterr().err == f"{expected} {said}\n"


def test_an_empty_file_has_the_code_that_a_run_gives_it(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    for source in (str(tmp_path / "a.mp4"), io.BytesIO()):
        with pytest.raises(ImageFault, match="empty_file: the file has no bytes"), open_video(source):
            pass


def test_a_signal_ends_it_cleanly_and_the_minute_is_written(tmp_path):
    path = film(tmp_path / "long.mp4", [numbered(number % 250) for number in range(1500)])
    command = [sys.executable, "-m", "maskdet.cli.main", "watch", str(path), "--parquet", str(tmp_path / "p")]
    process = subprocess.Popen(
        [*command, "--set", "faces.mode=whole"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert json.loads(process.stdout.readline())["faces"]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "frames decoded" in said
    assert list((tmp_path / "p" / "predictions").glob("watch-*.parquet"))
