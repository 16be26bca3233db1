import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdet.evaluation.annotations import read_voc
from tools.incorrect.gathering import Annotated, items_of_scenes
from tools.incorrect.sources import RELABELLED, SCENE_NAMES, Face, Photographs, about, relabelled


def test_every_relabelled_file_has_a_reason():
    with RELABELLED.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len({row["path"] for row in rows}) == len(rows) == len(relabelled())
    assert {row["was"] for row in rows if "#" not in row["path"]} == {"mask"}
    assert all(row["was"] != row["is"] for row in rows)
    assert {row["is"] for row in rows} <= {"incorrect", "no_mask", "unclear"}
    assert all(row["reason"] for row in rows)


@pytest.mark.data
def test_relabelled_files_are_there(data_folder):
    assert all((data_folder / path.partition("#")[0]).is_file() for path in relabelled())


@pytest.mark.data
def test_relabelled_faces_are_annotated_as_the_list_says(data_folder):
    with RELABELLED.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if "#" in row["path"]]
    for row in rows:
        image, _, number = row["path"].partition("#")
        (annotated,) = read_voc([str(data_folder / "scenes/annotations" / f"{Path(image).stem}.xml")], SCENE_NAMES)
        assert annotated.labels[int(number)] == row["was"], row


@pytest.mark.data
def test_items_of_scenes_show_what_the_list_says(data_folder):
    def face(number, label):
        return Annotated("scenes/images/scene_760.jpg", number, label, np.array([0.0, 0, 40, 40]), None, "fit", "a")

    faces = [face(0, "no_mask"), face(2, "no_mask")]  # the second is unclear
    faces.append(Annotated("scenes/images/scene_436.jpg", 1, "mask", faces[0].box, None, "fit", "b"))
    items = list(items_of_scenes(data_folder, faces))
    assert [(item.path, item.label) for item in items] == [
        ("scenes/images/scene_760.jpg#0", "no_mask"),
        ("scenes/images/scene_436.jpg#1", "incorrect"),
    ]


def test_the_part_about_a_face_keeps_its_place():
    picture = Image.fromarray(np.arange(400 * 600 * 3, dtype=np.uint32).reshape(400, 600, 3).astype(np.uint8))
    part, corner, factor, box = about(picture, np.array([200.0, 100.0, 240.0, 150.0]), reach=2.0, limit_px=50)
    assert corner.tolist() == [170, 75]  # 50 to each side of (220, 125)
    assert part.size == (50, 50)
    assert factor == 0.5
    assert box.tolist() == [15, 12.5, 35, 37.5]


def test_the_part_ends_where_the_photograph_does():
    part, corner, factor, box = about(
        Image.new("RGB", (60, 40)), np.array([0.0, 0.0, 30.0, 30.0]), reach=4.0, limit_px=320
    )
    assert (part.size, corner.tolist(), factor) == ((60, 40), [0, 0], 1.0)
    assert box.tolist() == [0, 0, 30, 30]


def test_landmarks_go_with_the_part(tmp_path):
    Image.new("RGB", (300, 300), (10, 20, 30)).save(tmp_path / "face.png")
    landmarks = np.array([[140.0, 140], [160, 140], [150, 150], [142, 160], [158, 160]])
    face = Face("face.png", "mask", "g", landmarks, np.array([130.0, 125, 170, 175]), "wild")
    part, moved, box = Photographs(tmp_path).about(face)
    assert part.size == (116, 116)  # 57.5 to each side, whole pixels
    assert moved == pytest.approx(landmarks - [92, 92])
    assert box == pytest.approx([38, 33, 78, 83])
