"""Tracks of `maskdet score`: each person in a film once, however the film is cut and whichever worker scores it."""

from __future__ import annotations

import shutil
from datetime import date

import numpy as np
import pyarrow.dataset as ds
import pytest
from PIL import Image

from maskdet.cli.files import main as files_main
from maskdet.cli.inspect import main as inspect_main
from maskdet.cli.prune import main as prune_main
from maskdet.demo.drawing import draw_face
from maskdet.tables.layout import PREDICTIONS, TRACK_RATES, TRACKS
from tests.tracks.scenes import idf1
from tests.video.clips import Actor, film, play

SECONDS = 6.0


def background(seed=0, width=640, height=360):
    noise = np.random.default_rng(seed).normal(0, 2, (height, width, 1))
    return np.clip(120 + np.linspace(-60, 60, width)[None, :, None] + noise + np.zeros(3), 0, 255).astype(np.uint8)


def drawn(seed, masked):
    return np.asarray(draw_face(np.random.default_rng(seed), 150, masked))


def read(folder):
    return ds.dataset(folder, format="parquet").to_table().to_pylist()


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A film of two people who meet, and of one who puts a mask on; keyframes half a second apart."""
    path = tmp_path_factory.mktemp("street") / "2026-03-02T08-00-00.mp4"
    actors = [
        Actor(drawn(2, False), (80, 90), (85, 0)),
        Actor(drawn(3, False), (560, 270), (-40, 0), (0.0, 3.0)),
        Actor(drawn(3, True), (440, 270), (-40, 0), (3.0, SECONDS)),
    ]
    return film(path, play(actors, background(), SECONDS), gop=12)


def score_street(score, street, folder, *flags):
    template = ("--template", "{captured_at:%Y-%m-%dT%H-%M-%S}.mp4")
    settings = ("--set", "compliance.levels={hourly: [date, hour]}", "--set", "video.frames_per_second=3")
    output = score(folder, street, template=None, faces="detect", flags=(*template, *settings, *flags))
    assert output.code == 0
    return output


@pytest.fixture(scope="module")
def walked(score, street, tmp_path_factory):
    return score_street(score, street, tmp_path_factory.mktemp("walked") / "t", "--set", "video.segment_seconds=1000")


def test_each_person_is_one_track_and_one_puts_a_mask_on(walked):
    tracks = {row["label"] if not row["changes"] else "changed": row for row in read(walked.folder / TRACKS)}
    assert len(read(walked.folder / TRACKS)) == 2
    [change] = tracks["changed"]["changes"]
    assert change["kind"] == "put_on"
    assert change["time_us"] == pytest.approx(3_000_000, abs=400_000)
    assert tracks["no_mask"]["frames"] >= 12
    assert tracks["no_mask"]["first_us"] < 1_000_000 < 5_000_000 < tracks["no_mask"]["last_us"]


def test_a_track_names_its_rows_and_its_best_face_is_one_of_them(walked):
    predictions = {(row["frame_time_us"], row["face_index"]): row for row in read(walked.folder / PREDICTIONS)}
    named = []
    for track in read(walked.folder / TRACKS):
        rows = [predictions[face["frame_time_us"], face["face_index"]] for face in track["faces"]]
        named += [(face["frame_time_us"], face["face_index"]) for face in track["faces"]]
        assert [row["frame_time_us"] for row in rows] == sorted({row["frame_time_us"] for row in rows})
        assert (rows[0]["frame_time_us"], rows[-1]["frame_time_us"]) == (track["first_us"], track["last_us"])
        assert track["captured_at"] == rows[0]["captured_at"]
        best = next(row for row in rows if row["frame_time_us"] == track["best_us"])
        for name in ("face_left_px", "face_top_px", "face_width_px", "face_height_px", "face_score"):
            assert best[name] == track[name]
    assert len(named) == len(set(named))


def test_rates_count_each_person_once(walked):
    levels = {row["date"]: row for row in read(walked.folder / TRACK_RATES)}
    whole = levels[None]
    assert whole["tracks"] == 2
    assert sum(whole[f"tracks_{name}"] for name in ("mask", "incorrect", "no_mask", "uncertain")) == 2
    assert (levels[date(2026, 3, 2)]["hour"], levels[date(2026, 3, 2)]["tracks"]) == (8, 2)
    assert walked.run.tracks == {
        name: whole[f"tracks_{name}"] for name in ("mask", "incorrect", "no_mask", "uncertain")
    }


def test_rates_of_few_people_are_hidden(walked, score, street, tmp_path):
    hidden = score_street(score, street, tmp_path / "t", "--set", "privacy.min_cell=3")
    rows = read(hidden.folder / TRACK_RATES)
    assert len(rows) == len(read(walked.folder / TRACK_RATES)) > 1
    assert all(row["hidden"] and row["tracks"] is row["tracks_mask"] is row["any_mask_rate"] is None for row in rows)
    assert not any(row["hidden"] for row in read(walked.folder / TRACK_RATES))
    assert hidden.run.tracks == walked.run.tracks


def test_tracks_are_files_of_the_set_and_go_when_their_video_is_pruned(walked, tmp_path, capsys):
    folder = tmp_path / "t"
    shutil.copytree(walked.folder, folder)
    assert files_main([str(folder), "--table", "tracks"]) == 0
    [named] = capsys.readouterr().out.split()
    assert named.startswith(str(folder))
    assert prune_main([str(folder), "--before", "2026-03-02"]) == 0
    assert len(read(folder / TRACKS)) == 2
    assert prune_main([str(folder), "--before", "2026-03-03"]) == 0
    assert not (folder / TRACKS).exists()


def test_images_alone_have_no_tables_of_tracks(score, demo, tmp_path):
    output = score(tmp_path / "t", next(demo.folder.rglob("*.jpg")), template=None)
    assert not (output.folder / TRACKS).exists()
    assert not (output.folder / TRACK_RATES).exists()


def test_whole_frames_have_a_table_of_tracks_without_rows(score, street, tmp_path):
    output = score(tmp_path / "t", street, template=None, faces="whole")
    assert read(output.folder / TRACKS) == []


@pytest.fixture(scope="module")
def clear_faces(data_folder):
    """Photographs of faces that the detector finds where they stand in the film, and whether they wear a mask."""
    from maskdet.api import find_faces

    chosen, places = [], (("WithMask", True), ("WithoutMask", False))
    for name, masked in places:
        found = []
        for path in sorted((data_folder / "k12" / "Test" / name).iterdir())[:24]:
            picture = np.asarray(Image.open(path).convert("RGB").resize((100, 100)))
            still = background()
            still[130:230, 270:370] = picture
            faces = find_faces(still)
            if len(faces) == 1 and faces[0].score > 0.65:
                found.append((picture, masked))
            if len(found) == 2:
                break
        chosen += found
    return chosen


@pytest.mark.data
def test_photographed_people_who_pass_are_tracked_as_they_walk(score, clear_faces, tmp_path):
    ways = [((60, 60), (85, 0)), ((580, 300), (-80, 0)), ((590, 180), (-90, 2)), ((100, 180), (60, 0))]
    times = [(0, 6), (0, 6), (0, 3), (3.4, 6)]
    actors = [
        Actor(picture, *way, seconds) for (picture, _), way, seconds in zip(clear_faces, ways, times, strict=True)
    ]
    path = film(tmp_path / "people.mp4", play(actors, background(), SECONDS), options={"crf": "20"})
    output = score(tmp_path / "t", path, template=None, faces="detect", flags=("--set", "video.frames_per_second=5"))
    faces = read(output.folder / PREDICTIONS)
    tracks = read(output.folder / TRACKS)
    of_face = {(face["frame_time_us"], face["face_index"]): row["track"] for row in tracks for face in row["faces"]}
    people, ids = [], []
    missed = 0
    by_time = {}
    for row in faces:
        by_time.setdefault(row["frame_time_us"], []).append(row)
    for number in range(30):
        time_s = number / 5
        rows = by_time.get(number * 200_000, [])
        unmatched = list(rows)
        for person, actor in enumerate(actors):
            place = actor.place(time_s)
            if place is None:
                continue
            hits = [row for row in unmatched if _centre_within(row, place)]
            if hits:
                unmatched.remove(hits[0])
                people.append(person)
                ids.append(of_face.get((hits[0]["frame_time_us"], hits[0]["face_index"]), -1))
            else:
                missed += 1
        people += [-1] * len(unmatched)
        ids += [of_face.get((row["frame_time_us"], row["face_index"]), -1) for row in unmatched]
    # A person whose face was not found has no track.
    people, ids = np.array(people + [0] * missed), np.array(ids + [-1] * missed)
    assert idf1(people, ids) >= 0.95
    assert len(tracks) == len(actors)
    labels = [row["label"] for row in sorted(tracks, key=lambda row: (row["first_us"] > 1e6, row["face_top_px"]))]
    assert sorted(labels[:3]) == ["mask", "mask", "no_mask"]


def _centre_within(row, place):
    x, y = row["face_left_px"] + row["face_width_px"] / 2, row["face_top_px"] + row["face_height_px"] / 2
    return place[0] <= x <= place[0] + 100 and place[1] <= y <= place[1] + 100


def test_inspect_and_prune_speak_of_tracks(walked, tmp_path, capsys):
    folder = tmp_path / "t"
    shutil.copytree(walked.folder, folder)
    assert inspect_main([str(folder)]) == 0
    said = capsys.readouterr().out
    assert "compliance,tracks,track_rates}" in said
    assert "\ntracks: 1 files, " in said
    _, names, total, *_ = said[said.index("track_rates, level all: 1 groups, n = tracks") :].splitlines()
    cells = dict(zip(names.split(), total.split(), strict=True))
    assert cells["tracks"] == "2"
    [whole] = [row for row in read(walked.folder / TRACK_RATES) if row["date"] is None]
    for name in ("any_mask_rate", "any_mask_rate_low", "any_mask_rate_high"):
        assert float(cells[name]) == pytest.approx(whole[name], abs=0.001)
    assert "track_rates, level hourly: 1 groups" in said
    assert prune_main([str(folder), "--before", "2026-03-02"]) == 0
    said = capsys.readouterr().out
    assert "0 images taken before 2026-03-02; 0 images and 1 videos in" in said
    assert "\n  tracks    0 mask, 0 incorrect, " in said
