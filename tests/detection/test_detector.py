"""The shipped detector: bundle, faces of scenes, and results that depend on the image alone."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from maskdet.config import FacesSettings
from maskdet.detection.boxes import pairwise_iou
from maskdet.detection.bundle import BUILTIN_FOLDER, NETWORK_FILE, open_detector
from maskdet.detection.detector import load_detector
from maskdet.errors import ModelError


@pytest.fixture(scope="module")
def detector():
    return load_detector(threads=2)


def portrait(data_folder):
    path = sorted((data_folder / "k12" / "Test" / "WithoutMask").iterdir())[0]
    return Image.open(path).convert("RGB").resize((120, 120))


def street(data_folder, width, height, places):
    image = Image.new("RGB", (width, height), (120, 130, 125))
    for place in places:
        image.paste(portrait(data_folder), place)
    return np.asarray(image)


def as_bytes(detections):
    return b"".join(part.tobytes() for part in detections)


def test_the_bundle_ships_with_its_licence_and_is_small():
    bundle = open_detector()
    assert "Permission is hereby granted" in (bundle.folder / "LICENSE").read_text()
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) < 4_000_000


@pytest.mark.parametrize("name", ["detector.tflite", "golden.npz", "LICENSE"])
def test_a_changed_or_missing_file_is_refused(tmp_path, name):
    folder = tmp_path / "copy"
    shutil.copytree(BUILTIN_FOLDER, folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(ModelError, match=name):
        open_detector(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        open_detector(folder)


def test_a_changed_manifest_is_refused(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(BUILTIN_FOLDER, folder)
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, "name": "other"}))
    with pytest.raises(ModelError, match="fingerprint"):
        open_detector(folder)


def test_a_network_with_other_weights_fails_its_golden_maps(tmp_path):
    import hashlib

    from maskdet.detection.bundle import DetectorBundle
    from maskdet.detection.network import Network

    folder = tmp_path / "copy"
    shutil.copytree(BUILTIN_FOLDER, folder)
    with np.load(folder / "golden.npz") as arrays:
        other = {**dict(arrays), "score": 1 - arrays["score"]}
    np.savez(folder / "golden.npz", **other)
    assert hashlib.sha256((folder / NETWORK_FILE).read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="golden"):
        Network(DetectorBundle(open_detector().manifest, folder))


def test_an_image_without_anything_has_no_face(detector):
    found = detector.detect(np.full((200, 300, 3), 128, np.uint8))
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,) and found.landmarks.shape == (0, 5, 2)


@pytest.mark.parametrize("shape", [(8, 8), (8, 3000), (1500, 9)])
def test_odd_shapes_are_no_trouble(detector, shape):
    found = detector.detect(np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8))
    assert np.isfinite(found.boxes).all()


@pytest.mark.data
def test_faces_are_found_where_they_are_also_across_tiles(detector, data_folder):
    places = [(40, 60), (1220, 300), (2400, 60), (1700, 640)]
    found = detector.detect(street(data_folder, 2700, 800, places))
    wanted = np.array([(x + 12, y + 4, x + 108, y + 116) for x, y in places], np.float32)
    assert (pairwise_iou(wanted, found.boxes).max(axis=1) > 0.5).all()
    assert found.boxes.min() >= 0 and (found.boxes[:, 2] <= 2700).all() and (found.boxes[:, 3] <= 800).all()
    assert (np.diff(found.scores) <= 0).all()
    eyes, mouth = found.landmarks[0, :2, 1].mean(), found.landmarks[0, 3:, 1].mean()
    assert eyes < mouth and found.landmarks[0, 0, 0] < found.landmarks[0, 1, 0]


@pytest.mark.data
def test_an_image_gives_the_same_bytes_whatever_runs_beside_it(detector, data_folder):
    images = [street(data_folder, 300 + 64 * n, 200, [(20, 30), (150, 60)]) for n in range(9)]
    alone = [as_bytes(load_detector().detect(image)) for image in images[:3]]
    with ThreadPoolExecutor(4) as pool:
        beside = [as_bytes(found) for found in pool.map(detector.detect, [*images, *images[::-1]])]
    assert beside[:9] == beside[:8:-1]
    assert beside[:3] == alone


@pytest.mark.data
def test_settings_drop_small_faint_and_surplus_faces(data_folder):
    image = street(data_folder, 600, 300, [(20, 30), (200, 60), (400, 100)])
    assert len(load_detector(FacesSettings(max_faces=2)).detect(image).scores) == 2
    assert len(load_detector(FacesSettings(min_face_px=290)).detect(image).scores) == 0
    assert len(load_detector(FacesSettings(min_score=0.999)).detect(image).scores) == 0
