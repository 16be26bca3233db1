import numpy as np
import pytest

from tools.incorrect.frame import (
    EYES,
    SIDE,
    UNIT,
    axes,
    canonical,
    coordinates,
    length,
    pixel_coordinates,
    sharpness,
    to_image,
    turn,
    usable,
)

UPRIGHT = np.array([[40.0, 50.0], [60.0, 50.0], [50.0, 62.0], [42.0, 70.0], [58.0, 70.0]])


def rotated(points, degrees):
    angle = np.radians(degrees)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def test_axes_of_an_upright_face():
    origin, across, down = axes(UPRIGHT)
    assert origin.tolist() == [50, 50]
    assert down.tolist() == [0, 20]
    assert across.tolist() == [20, 0]
    assert length(UPRIGHT) == 20


@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_coordinates_turn_with_the_face(degrees):
    u, v = coordinates(rotated(UPRIGHT, degrees), rotated(UPRIGHT, degrees))
    assert u == pytest.approx([-0.5, 0.5, 0, -0.4, 0.4])
    assert v == pytest.approx([0, 0, 0.6, 1, 1])


def test_coordinates_lead_back_to_the_image():
    landmarks = rotated(UPRIGHT, 25)
    assert to_image(landmarks, *coordinates(landmarks, landmarks)) == pytest.approx(landmarks)


def test_every_pixel_has_coordinates():
    u, v = pixel_coordinates(UPRIGHT, 80, 90)
    assert u.shape == v.shape == (80, 90)
    assert (u[50, 70], v[50, 70]) == (1, 0)
    assert (u[70, 50], v[70, 50]) == (0, 1)


def test_the_nose_tells_the_turn():
    turned = UPRIGHT.copy()
    turned[2, 0] += 5
    assert turn(UPRIGHT) == 0
    assert turn(turned) == pytest.approx(0.25)


def test_the_frame_shows_a_face_at_its_place():
    picture = np.zeros((120, 100, 3), np.float32)
    picture[49:52, 49:52] = 255  # between the eyes
    frame = canonical(picture, UPRIGHT)
    assert frame.shape == (SIDE, SIDE, 3)
    rows, columns = np.nonzero(frame[..., 0] > 128)
    assert columns.mean() == pytest.approx(EYES[0], abs=0.6)
    assert rows.mean() == pytest.approx(EYES[1], abs=0.6)
    assert len(rows) == pytest.approx((2 * UNIT / 20) ** 2 * 9 / 4, rel=0.5)


def test_edges_go_on_beyond_the_picture():
    picture = np.full((72, 100, 3), 90, np.float32)
    assert np.allclose(canonical(picture, UPRIGHT), 90)


def test_profiles_and_tiny_faces_are_not_used():
    profile, tiny = UPRIGHT.copy(), UPRIGHT * 0.2
    profile[:2, 0] = 49, 52
    assert usable(UPRIGHT)
    assert not usable(profile)
    assert not usable(tiny)


def test_blur_takes_sharpness_away():
    from scipy import ndimage

    noise = np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE, 3))
    assert sharpness(noise) > 3 * sharpness(ndimage.gaussian_filter(noise, (2, 2, 0)))
