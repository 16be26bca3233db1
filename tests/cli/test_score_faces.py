"""`maskdet score --faces detect` on scenes whose faces are known, and on images that have none."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from maskdet.faces.crops import crop_face
from maskdet.faces.detector import load_detector
from maskdet.images.codecs import load_codecs, resolve_codecs
from maskdet.labels import class_columns
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.tables.layout import COMPLIANCE, FAILURES, NO_FACE, PREDICTIONS
from tools.scenes.scenes import FaceSource, SceneOptions, make_scene, write_scenes

pytestmark = pytest.mark.data

SCENES = 24
LENIENT = ("--set", "failure_budget.max_ratio=0.9")


@pytest.fixture(scope="module")
def scenes(data_folder, tmp_path_factory):
    """Street scenes with up to six faces each, some without any, and a folder that holds nothing else."""
    folder = tmp_path_factory.mktemp("scenes") / "day"
    places = (("WithMask", "mask"), ("WithoutMask", "no_mask"))
    crops = [
        FaceSource(path, label)
        for name, label in places
        for path in sorted((data_folder / f"k12/Test/{name}").iterdir())
    ]
    options = SceneOptions(sizes_px=(32.0, 150.0), faces=(1, 6))
    write_scenes(folder, [make_scene(5, index, crops, (), options) for index in range(SCENES)])
    (folder / "annotations.json").rename(folder.parent / "annotations.json")
    return folder


@pytest.fixture(scope="module")
def scored(scenes, score, tmp_path_factory):
    return score(tmp_path_factory.mktemp("out") / "tables", scenes, template=None, faces="detect")


def test_every_scene_is_scored_or_has_no_face(scenes, scored):
    images = scored.run.images
    assert scored.code == 0
    assert images.listed == SCENES == images.scored + images.no_face
    assert images.scored == len(set(scored.table(PREDICTIONS)["image_uri"].to_pylist()))
    faceless = scored.table(NO_FACE)
    assert images.no_face == faceless.num_rows > 0
    assert not set(faceless["image_uri"].to_pylist()) & set(scored.table(PREDICTIONS)["image_uri"].to_pylist())
    for row in faceless.to_pylist():
        with Image.open(row["image_uri"]) as image:
            assert (row["width_px"], row["height_px"]) == image.size
    [row] = scored.table(COMPLIANCE).to_pylist()
    assert row["images_no_face"] == images.no_face
    assert row["faces"] == scored.table(PREDICTIONS).num_rows > images.scored
    assert "detect, balanced: faces of 16 px up" in scored.run.model["view"]


def test_most_faces_are_found_where_they_are_and_labelled_rightly(scenes, scored):
    content = json.loads((scenes.parent / "annotations.json").read_text())
    names = {image["id"]: str(scenes / image["file_name"]) for image in content["images"]}
    found = collections.defaultdict(list)
    for row in scored.table(PREDICTIONS).to_pylist():
        box = [row[f"face_{side}_px"] for side in ("left", "top", "width", "height")]
        found[row["image_uri"]].append((box, row["label"]))
    right = 0
    for face in content["annotations"]:
        label = {1: "mask", 2: "no_mask"}[face["category_id"]]
        right += any(iou(face["bbox"], box) >= 0.4 and label == said for box, said in found[names[face["image_id"]]])
    # Geometry, not accuracy: these scenes are pasted together, and the detector was chosen on photographs.
    assert right / len(content["annotations"]) >= 0.8
    assert sum(map(len, found.values())) <= 1.15 * len(content["annotations"])


def iou(one, other):
    """By its definition, of boxes left, top, width, height."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def test_rows_are_what_detector_crop_and_model_give_one_image_at_a_time(scored):
    detector = load_detector(codecs=load_codecs(resolve_codecs("auto")))
    model = load_model("builtin", RuntimeSpec(threads=1))
    spec = model.manifest.input
    rows = collections.defaultdict(list)
    for row in scored.table(PREDICTIONS).to_pylist():
        rows[row["image_uri"]].append(row)
    for uri, faces in list(rows.items())[:6]:
        with Image.open(uri) as image:
            picture = image.convert("RGB")
        expected = detector.detect(picture)
        assert [row["face_score"] for row in faces] == expected.scores.tolist()
        assert [row["face_index"] for row in faces] == list(range(len(faces)))
        for row, box, points in zip(faces, expected.boxes, expected.landmarks, strict=True):
            assert (row["face_left_px"], row["face_top_px"]) == (box[0], box[1])
            assert row["face_width_px"] == pytest.approx(box[2] - box[0], rel=1e-6)
            crop = crop_face(picture, box, points, spec.height, spec.width)
            by_class = class_columns(model.predict(crop[np.newaxis]), model.manifest.class_names)
            assert row["probability_mask"] == by_class["mask"][0]


@pytest.mark.parametrize(
    "flags",
    [
        ("--set", "scoring.threads=1"),
        ("--set", "scoring.threads=4", "--set", "scoring.block_images=3", "--set", "packing.max_images=5"),
        ("--direct_num_workers=2", "--direct_running_mode=multi_threading"),
    ],
)
def test_tables_do_not_depend_on_threads_blocks_or_shards(scenes, scored, score, tmp_path, flags):
    assert score(tmp_path / "t", scenes, flags=flags, template=None, faces="detect").contents() == scored.contents()


def test_a_second_run_keeps_all_and_another_detection_threshold_none(scenes, score, tmp_path):
    first = score(tmp_path / "t", scenes, template=None, faces="detect")
    before, faces = first.contents(), first.table(PREDICTIONS).num_rows
    again = score(tmp_path / "t", scenes, template=None, faces="detect")
    assert again.run.shards["kept"] == first.run.shards["total"]
    assert again.contents() == before
    assert again.run.images == first.run.images
    strict = score(tmp_path / "t", scenes, flags=("--set", "faces.min_score=0.6"), template=None, faces="detect")
    assert strict.run.shards["kept"] == 0
    assert strict.table(PREDICTIONS).num_rows < faces


def test_images_without_a_face_may_count_as_one(scenes, scored, score, tmp_path):
    whole = score(tmp_path / "t", scenes, flags=("--set", "faces.if_none=whole"), template=None, faces="detect")
    assert (whole.run.images.scored, whole.run.images.no_face) == (SCENES, 0)
    assert whole.table(NO_FACE).num_rows == 0
    alone = [row for row in whole.table(PREDICTIONS).to_pylist() if row["face_score"] is None]
    assert {row["image_uri"] for row in alone} == set(scored.table(NO_FACE)["image_uri"].to_pylist())
    assert all(row["face_left_px"] is None and row["face_index"] == 0 for row in alone)


def test_hostile_images_cost_one_row_each_and_their_neighbours_nothing(scenes, scored, score, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in scenes.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    whole = next(scenes.iterdir()).read_bytes()
    bad = {"empty_file": b"", "not_an_image": b"no image at all", "corrupt_image": whole[: len(whole) // 2]}
    for code, data in bad.items():
        (folder / f"bad-{code}.jpg").write_bytes(data)
    mixed = score(tmp_path / "t", folder, flags=LENIENT, template=None, faces="detect")
    assert mixed.run.images.failed == len(bad)
    assert sorted(mixed.table(FAILURES)["code"].to_pylist()) == sorted(bad)

    def plain(output):
        rows = output.table(PREDICTIONS).drop_columns(["image_uri"]).to_pylist()
        return sorted(rows, key=lambda row: (row["content_sha256"], row["face_index"]))

    assert plain(mixed) == plain(scored)


def test_large_jpegs_give_boxes_in_pixels_of_the_original(data_folder, score, tmp_path):
    face = sorted((data_folder / "k12/Test/WithoutMask").iterdir())[0]
    with Image.open(face) as crop:
        enlarged = crop.convert("RGB").resize((400, 400))
    scene = Image.new("RGB", (2400, 1600), (110, 120, 100))
    scene.paste(enlarged, (1500, 600))
    (tmp_path / "in").mkdir()
    scene.save(tmp_path / "in" / "large.jpg", quality=92)
    for flags in ((), ("--set", "faces.min_face_px=128")):  # the second decodes at a quarter
        [row] = (
            score(tmp_path / f"t{len(flags)}", tmp_path / "in", flags=flags, template=None, faces="detect")
            .table(PREDICTIONS)
            .to_pylist()
        )
        box = [row[f"face_{side}_px"] for side in ("left", "top", "width", "height")]
        assert iou(box, (1500 + 40, 600 + 12, 320, 376)) > 0.6
        assert (row["width_px"], row["height_px"], row["label"]) == (2400, 1600, "no_mask")
