import numpy as np
import pytest

from tests.tools.incorrect.faces import LANDMARKS, MASK, SIZE, SKIN, bare, masked, picture, worn
from tools.incorrect.bystanders import hide_part
from tools.incorrect.frame import canonical, in_frame, pixel_coordinates
from tools.incorrect.mattes import cut_mask
from tools.incorrect.placing import draw_place, put_mask
from tools.incorrect.restoring import BareFaces, restored


@pytest.fixture(scope="module")
def mask():
    return cut_mask(picture(masked()), LANDMARKS)


def distance(pixels, colour):
    return np.abs(pixels - np.array(colour)).mean(axis=-1)


def test_a_matte_is_the_mask(mask):
    from scipy import ndimage

    places = in_frame(*pixel_coordinates(LANDMARKS, SIZE, SIZE))
    found = ndimage.map_coordinates(mask.alpha, places, order=1) > 0.5
    assert np.sum(found & worn()) / np.sum(found | worn()) > 0.85
    assert mask.extent.top == pytest.approx(0.35, abs=0.08)
    assert mask.extent.bottom == pytest.approx(1.75, abs=0.1)


def test_a_bare_face_has_no_mask_to_cut_out():
    assert cut_mask(picture(bare()), LANDMARKS) is None


@pytest.mark.parametrize(
    ("kind", "highest", "lowest"), [("right", 0.05, 0.42), ("nose", 0.58, 1.02), ("chin", 1.02, 1.6)]
)
def test_a_mask_is_put_where_its_kind_says(mask, kind, highest, lowest):
    _, v = pixel_coordinates(LANDMARKS, SIZE, SIZE)
    middle = slice(95, 106)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        place = draw_place(kind, rng)
        assert highest <= place.top <= lowest
        face, alpha = put_mask(bare(), LANDMARKS, mask, place, rng)
        rows = np.flatnonzero(alpha[:, middle].mean(axis=1) > 0.5)
        assert v[rows[0], 100] == pytest.approx(place.top, abs=0.15)
        assert distance(face, MASK)[alpha > 0.98].mean() < distance(bare(), MASK)[alpha > 0.98].mean() / 2
        above = (v < 0.0) & (alpha < 0.01)
        assert np.abs(face - bare())[above].mean() < 4  # except for straps, nothing changes around the eyes


def test_a_mask_on_an_ear_leaves_nose_and_mouth_free(mask):
    u, v = pixel_coordinates(LANDMARKS, SIZE, SIZE)
    front = (np.abs(u) < 0.3) & (v > 0.4) & (v < 1.1)
    rng = np.random.default_rng(1)
    _, alpha = put_mask(bare(), LANDMARKS, mask, draw_place("ear", rng), rng)
    assert alpha[front].mean() < 0.05
    assert alpha.sum() > 100


def test_restoring_replaces_the_mask_by_skin(mask):
    source = canonical(picture(bare(5)), LANDMARKS)
    face = restored(masked(), LANDMARKS, mask.alpha, source)
    u, v = pixel_coordinates(LANDMARKS, SIZE, SIZE)
    cheek = worn() & (np.abs(u) < 0.6) & (v > 0.5) & (v < 0.85)
    assert distance(face, SKIN)[cheek].mean() < 12
    assert distance(masked(), SKIN)[cheek].mean() > 60
    eyes = (v < 0.0) & (v > -0.3)
    assert np.abs(face - masked())[eyes].mean() < 1


def test_faces_are_restored_from_those_of_like_colour():
    light, dark = canonical(picture(bare()), LANDMARKS), canonical(picture(bare() * 0.4), LANDMARKS)
    faces = BareFaces([(LANDMARKS, light), *[(LANDMARKS, dark)] * 6])
    found = [faces.like(LANDMARKS, dark, np.random.default_rng(seed)) for seed in range(5)]
    assert all(face is dark for face in found)


def test_what_stands_before_a_face_leaves_its_eyes_free_mostly():
    heads, cloths = [canonical(picture(bare(3)), LANDMARKS)], [np.full((40, 40, 3), 20, np.float32)]
    changed = [
        np.abs(hide_part(bare(), LANDMARKS, heads, cloths, np.random.default_rng(seed)) - bare()).mean(axis=-1) > 25
        for seed in range(40)
    ]
    u, v = pixel_coordinates(LANDMARKS, SIZE, SIZE)
    eyes, chin = (np.abs(u) < 0.6) & (np.abs(v) < 0.15), (np.abs(u) < 0.6) & (v > 1.4) & (v < 1.8)
    assert np.mean([part[eyes].mean() for part in changed]) < 0.15
    assert np.mean([part[chin].mean() for part in changed]) > 0.3


def test_equal_seeds_make_equal_faces(mask):
    made = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        made.append(put_mask(bare(), LANDMARKS, mask, draw_place("nose", rng), rng)[0])
    assert np.array_equal(*made)
