"""People in videos in the explorer: tracks, their frames and pictures, and the video served by byte ranges."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pyarrow.dataset as ds
import pytest
from filmed_output import score_films
from PIL import Image
from starlette.testclient import TestClient

from maskdet.explore.access import Gate
from maskdet.explore.app import explorer
from maskdet.explore.films import MOST_BYTES
from maskdet.report.database import Tables
from maskdet.tables.layout import PREDICTIONS, TRACK_RATES, TRACKS

ORIGIN = "http://127.0.0.1:8765"


def entered(tables):
    door = Gate(8765)
    client = TestClient(explorer(tables, door), base_url=ORIGIN, headers={"origin": ORIGIN}, follow_redirects=False)
    assert client.get(f"/?token={door.token}").status_code == 303
    return client


@pytest.fixture(scope="module")
def output(score, demo, tmp_path_factory):
    return score_films(score, demo, tmp_path_factory.mktemp("filmed"))


@pytest.fixture(scope="module")
def client(output):
    with Tables(str(output.folder)) as tables:
        yield entered(tables)


def rows(output, table):
    return ds.dataset(output.folder / table, format="parquet", partitioning=None).to_table().to_pylist()


def test_tracks_are_those_of_the_table_with_their_best_face(client, output):
    expected = sorted(rows(output, TRACKS), key=lambda row: (row["captured_at"], row["image_uri"], row["track"]))
    found = client.get("/api/tracks").json()
    assert (found["total"], len(found["tracks"]), found["videos"]) == (3, 3, 2)
    faces = {face["id"]: face for face in client.get("/api/faces").json()["faces"]}
    for one, row in zip(found["tracks"], expected, strict=True):
        for name in ("track", "first_us", "last_us", "best_us", "frames", "label", "changes"):
            assert one[name] == row[name]
        best = faces[one["face"]]
        assert (best["uri"], best["time_us"], best["box"]) == (row["image_uri"], row["best_us"], one["box"])
        assert one["keys"] == {"site": row["site"]}
    # He comes after a second.
    assert found["tracks"][-1]["captured_at"] == "2026-03-03 09:30:01"
    assert found["changes"] == {"put_on": 1, "taken_off": 0, "slipped": 0, "put_right": 0}


def test_the_rate_is_that_of_track_rates(client, output):
    table = rows(output, TRACK_RATES)
    for site in (None, "north", "south"):
        [rate] = [row for row in table if row["site"] == site and row["date"] is None]
        found = client.get("/api/tracks", params={} if site is None else {"key.site": site}).json()
        assert (found["counted"], found["share"]) == (rate["tracks"], rate["correct_rate"])
        assert (found["low"], found["high"]) == (rate["correct_rate_low"], rate["correct_rate_high"])


def test_filters_and_pages(client, output):
    def count(**asked):
        return client.get("/api/tracks", params=asked).json()["total"]

    labels = [row["label"] for row in rows(output, TRACKS)]
    assert count(label="no_mask") == labels.count("no_mask")
    assert (count(since="2026-03-03"), count(until="2026-03-02")) == (1, 2)
    assert len(client.get("/api/tracks", params={"first": 2}).json()["tracks"]) == 1
    for wrong in ({"first": "-1"}, {"first": "x"}, {"first": "1' OR"}, {"key.nothing": "a"}, {"other": "1"}):
        assert client.get("/api/tracks", params=wrong).status_code == 400


def test_frames_of_a_track_are_its_rows(client, output):
    predictions = {
        (row["image_uri"], row["frame_time_us"], row["face_index"]): row for row in rows(output, PREDICTIONS)
    }
    for one in client.get("/api/tracks").json()["tracks"]:
        [row] = [row for row in rows(output, TRACKS) if (row["image_uri"], row["track"]) == (one["uri"], one["track"])]
        frames = client.get(f"/api/track/{one['id']}").json()
        assert [frame["time_us"] for frame in frames] == [face["frame_time_us"] for face in row["faces"]]
        for frame, face in zip(frames, row["faces"], strict=True):
            assert frame["label"] == predictions[row["image_uri"], face["frame_time_us"], face["face_index"]]["label"]
    for wrong in ("tracks-0-999", "tracks-9-0", "faces-0-0", "tracks-0-x", "..%2Fetc"):
        assert client.get(f"/api/track/{wrong}").status_code == 404


def test_pictures_show_the_frame_and_the_face_in_it(client):
    for one in client.get("/api/tracks").json()["tracks"]:
        whole = client.get(f"/picture/image/{one['face']}")
        assert (whole.status_code, whole.headers["content-type"]) == (200, "image/jpeg")
        picture = np.asarray(Image.open(io.BytesIO(whole.content)).convert("RGB")).astype(int)
        assert list(picture.shape[1::-1]) == one["size"] == [640, 360]
        left, top, width, height = (round(side) for side in one["box"])
        # The background is grey; a face is not.
        inside = picture[top : top + height, left : left + width]
        assert np.abs(inside - inside.mean(axis=2, keepdims=True)).mean() > 10
        crop = client.get(f"/picture/face/{one['face']}")
        assert Image.open(io.BytesIO(crop.content)).size == (144, 144)


def test_the_video_is_served_by_ranges(client):
    one = client.get("/api/tracks").json()["tracks"][-1]
    path, address = one["uri"], f"/video/{one['face']}"
    with open(path, "rb") as stream:
        data = stream.read()
    assert len(data) < MOST_BYTES

    def part(asked):
        return client.get(address, headers={"range": asked})

    assert client.get(address).content == data
    for asked, start, end in (
        ("bytes=0-", 0, len(data)),
        ("bytes=10-19", 10, 20),
        ("bytes=-5", len(data) - 5, len(data)),
        (f"bytes=0-{10**18}", 0, len(data)),
    ):
        found = part(asked)
        assert (found.status_code, found.content) == (206, data[start:end])
        assert found.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"
        assert found.headers["content-type"] == "video/webm"
    for asked in (f"bytes={len(data)}-", "bytes=5-4", "bytes=-", "bytes=0-1,3-4", "words=1-2"):
        assert part(asked).status_code == 416


def test_what_is_no_frame_has_no_video_and_strangers_get_nothing(client, output):
    faces = client.get("/api/faces").json()["faces"]
    assert any(face["time_us"] is None for face in faces)
    for face in faces:
        assert client.get(f"/video/{face['id']}").status_code == (404 if face["time_us"] is None else 200)
    assert client.get("/video/faces-0-99999").status_code == 404
    stranger = TestClient(client.app, base_url=ORIGIN)
    address = next(face["id"] for face in faces if face["time_us"] is not None)
    for path in (f"/video/{address}", "/api/tracks", "/api/track/tracks-0-0", f"/picture/image/{address}"):
        assert stranger.get(path).status_code == 401


def test_a_video_that_is_gone_is_said_to_be(score, demo, tmp_path):
    output = score_films(score, demo, tmp_path)
    shutil.rmtree(tmp_path / "in")
    with Tables(str(output.folder)) as tables:
        client = entered(tables)
        one = client.get("/api/tracks").json()["tracks"][0]
        assert client.get(f"/video/{one['face']}").status_code == 410
        assert client.get(f"/picture/image/{one['face']}").text == "gone since it was scored\n"


def test_without_videos_there_is_nothing_of_them(score, demo, tmp_path):
    output = score(tmp_path / "t", next(demo.folder.rglob("*.jpg")), template=None)
    with Tables(str(output.folder)) as tables:
        client = entered(tables)
        assert client.get("/api/start").json()["has_tracks"] is False
        assert client.get("/api/tracks").status_code == 404
