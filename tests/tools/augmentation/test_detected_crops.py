import numpy as np
import pytest
from PIL import Image

from maskdet.demo.drawing import draw_face
from maskdet.faces.decoding import Detections
from maskdet.faces.detector import load_detector
from tools.augmentation.detected_crops import crop_found, shrink


def finder(*faces):
    """A detector that finds these (box, score) pairs in every image."""
    boxes = np.array([box for box, _ in faces], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in faces], np.float32)
    return lambda _pixels: Detections(boxes, scores, np.zeros((len(faces), 5, 2), np.float32), scores)


@pytest.fixture(scope="module")
def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 240, 3), np.uint8))


def test_the_crop_is_the_box_with_a_twentieth_on_every_side(noise):
    crop = crop_found(noise, np.array([100.0, 90.0]), finder(((60, 50, 120, 150), 0.8)), 0.45)
    # 100 px high, 5 px more on either end, square about (90, 100); at its own size, so no pixel changes
    assert crop == noise.crop((35, 45, 145, 155))


def test_the_surest_face_that_holds_the_place_is_taken(noise):
    other, wanted = ((0, 0, 40, 40), 0.9), ((60, 50, 160, 150), 0.6)
    place = np.array([110.0, 100.0])
    assert crop_found(noise, place, finder(other, wanted), 0.45) == noise.crop((55, 45, 165, 155))
    assert crop_found(noise, None, finder(((100, 100, 140, 140), 0.9), wanted), 0.45) == noise.crop((98, 98, 142, 142))
    assert crop_found(noise, place, finder(other), 0.45) is None
    assert crop_found(noise, place, finder(wanted), 0.7) is None
    assert crop_found(noise, place, finder(((105, 95, 120, 110), 0.9)), 0.45) is None  # 15 px
    assert crop_found(noise, place, finder(), 0.45) is None


def test_large_faces_are_stored_at_224_pixels(noise):
    large = noise.resize((960, 800))
    assert crop_found(large, None, finder(((300, 200, 700, 600), 0.9)), 0.45).size == (224, 224)


def test_images_shrink_to_a_fifth_at_most(noise):
    factors = []
    for seed in range(200):
        smaller, factor = shrink(noise, np.random.default_rng(seed))
        assert smaller.size == (round(240 * factor), round(200 * factor))
        factors.append(factor)
    assert 0.2 <= min(factors) < 0.22
    assert 0.9 < max(factors) <= 1.0
    assert np.median(factors) == pytest.approx(0.2**0.5, abs=0.06)  # log-uniform


def test_the_built_in_detector_finds_drawn_faces_again():
    detect = load_detector().detect
    crops = []
    for seed in range(6):
        scene = Image.new("RGB", (320, 240), (90, 120, 90))
        scene.paste(draw_face(np.random.default_rng(seed), 120, masked=seed % 2 == 0), (100, 60))
        crops.append(crop_found(scene, np.array([160.0, 120.0]), detect, 0.45))
    found = [crop for crop in crops if crop is not None]
    assert len(found) >= 3  # drawn faces; the detector was made on photographs
    assert all(60 < crop.width == crop.height < 200 for crop in found)
