"""The shipped detector: bundle, faces of scenes, and results that depend on the image alone."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from maskdet.config import FacesSettings
from maskdet.errors import ModelError
from maskdet.faces.boxes import pairwise_iou
from maskdet.faces.bundle import BUILTIN_FOLDER, NETWORK_FILE, open_detector
from maskdet.faces.decoding import Heads
from maskdet.faces.detector import Detector, load_detector


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

    from maskdet.faces.bundle import DetectorBundle
    from maskdet.faces.network import Network

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


class OneFace:
    """Stands in for the network: sees one face at the middle of canvases of one width."""

    def __init__(self, canvas_px, face_px, score):
        self.canvas_px, self.face_px, self.score = canvas_px, face_px, score

    def run(self, canvas):
        rows, columns = canvas.shape[0] // 4, canvas.shape[1] // 4
        maps = [np.zeros((rows, columns, *rest), np.float32) for rest in ((), (2,), (2,), (10,))]
        if canvas.shape[1] == self.canvas_px:
            maps[0][rows // 2, columns // 2] = self.score
            maps[1][...] = np.log(self.face_px / 4)
        return Heads(*maps)


@pytest.mark.parametrize(
    ("canvas_px", "face_px", "score", "found"),
    [
        # A picture of 512 pixels is seen at its size, and within a border of 32 as one of 128.
        (512, 40, 0.51, 1),
        (512, 40, 0.49, 0),
        (512, 80, 0.57, 1),
        (512, 80, 0.55, 0),
        (192, 90, 0.45, 1),
        (192, 90, 0.43, 0),
        (192, 40, 0.49, 0),
        (512, 15, 0.90, 1),
        (512, 14, 0.90, 0),
    ],
    ids=str,
)
def test_how_sure_a_face_has_to_be_depends_on_its_size(canvas_px, face_px, score, found):
    detector = Detector(OneFace(canvas_px, face_px, score), FacesSettings(min_score=0.5, min_face_px=16))
    assert len(detector.detect(np.zeros((512, 512, 3), np.uint8)).scores) == found
