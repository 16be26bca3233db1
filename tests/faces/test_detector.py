"""The shipped detector: its bundle, faces in scenes, and results that depend on the image alone."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from maskdet.config import FacesSettings
from maskdet.errors import ModelError
from maskdet.evaluation.annotations import LABELS, read_voc
from maskdet.evaluation.detection_metrics import FoundFaces, match_by_centre
from maskdet.faces.boxes import pairwise_iou
from maskdet.faces.bundle import BUILTIN_FOLDER, open_detector
from maskdet.faces.decoding import Detections, no_detections
from maskdet.faces.detector import Detector, load_detector
from tools.detector.export import read_split

MEANINGS = {**LABELS, "mask_weared_incorrect": "incorrect"}


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
    from maskdet.faces.bundle import DetectorBundle
    from maskdet.faces.network import Network

    folder = tmp_path / "copy"
    shutil.copytree(BUILTIN_FOLDER, folder)
    with np.load(folder / "golden.npz") as arrays:
        other = {**dict(arrays), "score": 1 - arrays["score"]}
    np.savez(folder / "golden.npz", **other)
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
def test_faces_are_found_where_they_are_also_in_a_wide_image(detector, data_folder):
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

    manifest = open_detector().manifest

    def __init__(self, canvas_px, face_px, score):
        self.canvas_px, self.face_px, self.score = canvas_px, face_px, score
        self.seen = []

    def detect(self, canvas, min_score):
        self.seen.append(canvas.shape[:2])
        if canvas.shape[1] != self.canvas_px or self.score < min_score:
            return no_detections()
        middle, half = np.array([canvas.shape[1], canvas.shape[0]]) / 2, self.face_px / 2
        box = np.array([[*(middle - half), *(middle + half)]], np.float32)
        one = np.ones(1, np.float32)
        return Detections(box, one * self.score, np.zeros((1, 5, 2), np.float32), one * self.face_px)


@pytest.mark.parametrize(
    ("canvas_px", "face_px", "score", "found"),
    [
        # A picture of 443 x 443 is seen as one of 448, and within a border of 32 as one of 128.
        (448, 36, 0.51, 1),
        (448, 36, 0.49, 0),
        (448, 60, 0.36, 1),  # .5 to the power of 1.5 is .354
        (448, 60, 0.35, 0),
        (128, 30, 0.28, 1),  # .5 to the power of 1.85 is .277
        (128, 30, 0.27, 0),
        (128, 20, 0.99, 0),  # fills less than .4 of the image
    ],
    ids=str,
)
def test_how_sure_a_face_has_to_be_depends_on_its_size(canvas_px, face_px, score, found):
    detector = Detector(OneFace(canvas_px, face_px, score), FacesSettings(min_score=0.5, min_face_px=16))
    assert len(detector.detect(np.zeros((443, 443, 3), np.uint8)).scores) == found


@pytest.mark.parametrize(("detail", "looks"), [("fast", 1), ("balanced", 4), ("fine", 4)])
def test_small_faces_are_looked_at_again_and_the_finer_look_decides(detail, looks):
    network = OneFace(448, 20, 0.9)
    found = Detector(network, FacesSettings(detail=detail)).detect(np.zeros((443, 443, 3), np.uint8))
    assert len(network.seen) == looks
    assert len(found.scores) == (1 if detail == "fast" else 0)  # nothing is seen on the finer canvas


class FaceOnTheLeft:
    """Sees one face where the left of a canvas is bright: eyes, nose and mouth at its left, right and left edge."""

    manifest = open_detector().manifest

    def __init__(self):
        self.seen = []

    def detect(self, canvas, min_score):
        self.seen.append(canvas.shape[:2])
        if canvas[64, 20].mean() < 200 or canvas.shape != (128, 128, 3):
            return no_detections()
        points = np.array([[[10, 40], [60, 41], [30, 60], [20, 80], [50, 81]]], np.float32)
        one = np.ones(1, np.float32)
        return Detections(np.array([[8, 30, 72, 94]], np.float32), one * 0.5, points, one * 64)


def test_an_image_without_a_face_is_looked_at_mirrored_and_what_is_seen_is_mirrored_back():
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[:, 200:] = 255
    network = FaceOnTheLeft()
    found = Detector(network, FacesSettings()).detect(picture)
    assert network.seen == [(384, 384), (128, 128), (128, 128)]
    # The canvas shows the picture 112 pixels wide within a border of 8: x is (128 - x of the mirrored one - 8) / .28.
    np.testing.assert_allclose(found.boxes, [[(128 - 72 - 8) / 0.28, 22 / 0.28, 400, 86 / 0.28]], rtol=1e-5)
    mirrored_back = [[60, 41], [10, 40], [30, 60], [50, 81], [20, 80]]
    expected = [[(128 - x - 8) / 0.28, (y - 8) / 0.28] for x, y in mirrored_back]
    np.testing.assert_allclose(found.landmarks[0], expected, rtol=1e-5)


@pytest.mark.parametrize(("score", "seen"), [(0.7, [(448, 448)]), (0.69, [(448, 448), (128, 128)])])
def test_an_image_with_a_sure_face_and_no_small_one_costs_one_look(score, seen):
    network = OneFace(448, 60, score)
    Detector(network, FacesSettings(detail="fine")).detect(np.zeros((443, 443, 3), np.uint8))
    assert network.seen == seen


@pytest.mark.data
def test_most_faces_of_photographs_of_the_tune_part_are_found(data_folder):
    detector, counts = load_detector(), np.zeros(2, int)
    stems = [stem for stem, part in read_split().items() if part == "tune"][:20]
    for stem in stems:
        (truth,) = read_voc([str(data_folder / "scenes" / "annotations" / f"{stem}.xml")], MEANINGS)
        image = Image.open(next((data_folder / "scenes" / "images").glob(f"{stem}.*"))).convert("RGB")
        found = detector.detect(image)
        match = match_by_centre(FoundFaces(found.boxes, found.scores), truth.boxes)
        large = (truth.boxes[:, 2:] - truth.boxes[:, :2]).max(axis=1) >= 32
        counts += [large.sum(), np.isin(np.flatnonzero(large), match).sum()]
    assert counts[0] > 20
    assert counts[1] >= 0.9 * counts[0]  # .97 on the whole tune part
