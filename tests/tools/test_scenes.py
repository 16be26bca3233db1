"""Scenes: the same for the same seed, boxes where the faces are, written as COCO."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskdet.errors import ConfigError, OutputError
from maskdet.evaluation.annotations import read_coco
from tools.scenes.backgrounds import draw_background
from tools.scenes.scenes import FACE_IN_CROP, FaceSource, SceneOptions, make_scene, rotated_face, write_scenes

PLAIN = SceneOptions(faceless=0, decoys=0, shoulders=0, blur=0, rotation_deg=0, sizes_px=(40, 80))


@pytest.fixture
def crops(tmp_path):
    sources = []
    for label, colour in (("mask", (255, 0, 0)), ("no_mask", (0, 255, 0))):
        path = tmp_path / f"{label}.png"
        Image.new("RGB", (60, 80), colour).save(path)
        sources.append(FaceSource(path, label))
    return sources


def test_scenes_depend_on_seed_and_number_alone(crops):
    one, again, other = (make_scene(3, index, crops) for index in (5, 5, 6))
    assert one.to_jpeg() == again.to_jpeg() and one.faces == again.faces
    assert one.to_jpeg() != other.to_jpeg()


def test_faces_have_the_sizes_asked_for_and_little_overlap(crops):
    for index in range(30):
        scene = make_scene(1, index, crops, options=SceneOptions(sizes_px=(30, 60), faces=(3, 6)))
        for face in scene.faces:
            assert 28 <= face.size_px <= 62
            assert face.left >= -0.5 and face.right <= scene.image.width + 0.5
            for other in scene.faces:
                width = min(face.right, other.right) - max(face.left, other.left)
                height = min(face.bottom, other.bottom) - max(face.top, other.top)
                smaller = min((f.right - f.left) * (f.bottom - f.top) for f in (face, other))
                assert face is other or max(0, width) * max(0, height) <= 0.1 * smaller + 1e-6


def test_the_middle_of_a_box_shows_the_crop(crops):
    for index in range(20):
        scene = make_scene(2, index, crops, options=PLAIN)
        pixels = np.asarray(scene.image).astype(int)
        for face in scene.faces:
            red, green, _ = pixels[int((face.top + face.bottom) / 2), int((face.left + face.right) / 2)]
            assert (red > green) == (face.label == "mask")


@given(st.floats(20, 200), st.floats(20, 200), st.floats(-90, 90))
def test_the_box_of_a_turned_face_holds_its_oval_and_no_more(width, height, angle):
    left, top, right, bottom = FACE_IN_CROP
    turn = math.radians(angle)
    points = []
    for step in np.linspace(0, 2 * math.pi, 2000):
        x = ((left + right) / 2 - 0.5 + (right - left) / 2 * math.cos(step)) * width
        y = ((top + bottom) / 2 - 0.5 + (bottom - top) / 2 * math.sin(step)) * height
        points.append((x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)))
    expected = (*np.min(points, axis=0), *np.max(points, axis=0))
    np.testing.assert_allclose(rotated_face(width, height, angle), expected, atol=1e-3 * max(width, height))


def test_turning_is_as_pillow_turns(tmp_path):
    crop = Image.new("L", (81, 81))
    crop.putpixel((70, 40), 255)  # right of the middle
    row, column = np.argwhere(np.asarray(crop.rotate(30)))[0]
    turn = math.radians(30)
    assert (column - 40, row - 40) == pytest.approx((30 * math.cos(turn), -30 * math.sin(turn)), abs=1)


def test_written_scenes_read_back(crops, tmp_path):
    scenes = [make_scene(4, index, crops) for index in range(6)]
    images = read_coco(str(write_scenes(tmp_path / "out", scenes)))
    for scene, image in zip(scenes, images, strict=True):
        assert (tmp_path / "out" / image.name).read_bytes() == scene.to_jpeg()
        assert image.labels == tuple(face.label for face in scene.faces)
        np.testing.assert_allclose(
            image.boxes.reshape(-1, 4), np.reshape([f[:4] for f in scene.faces], (-1, 4)), atol=1e-3
        )
    with pytest.raises(OutputError):
        write_scenes(tmp_path / "out", scenes)


def test_bad_options_are_refused(crops):
    with pytest.raises(ConfigError, match="crops"):
        make_scene(1, 1, [])
    with pytest.raises(ConfigError, match="sizes_px"):
        SceneOptions(sizes_px=(16, 1000))
    with pytest.raises(ConfigError, match="faces"):
        SceneOptions(faces=(5, 2))


def test_backgrounds_vary_and_have_the_size_asked_for(crops):
    images = [draw_background(np.random.default_rng(seed), 64, 48, [crops[0].path]) for seed in range(40)]
    assert {image.size for image in images} == {(64, 48)}
    assert len({image.tobytes() for image in images}) == 40
