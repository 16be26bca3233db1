import numpy as np
import pytest
from PIL import Image

from maskdet.demo.drawing import EYES_Y, MOUTH_Y
from tools.augmentation.face_swap import Donor, draw_bust, replace_face
from tools.augmentation.geometry import head_pose
from tools.augmentation.masks import put_mask_on
from tools.augmentation.occlusions import _paint_glasses, cover_face
from tools.augmentation.overlay import painted_over


def changed(before, after):
    return np.abs(np.asarray(after, np.int16) - np.asarray(before, np.int16)).max(axis=-1)


def at(pose, image, x, y):
    """Column and row of a point in head units, for an upright head."""
    unit_px = pose.unit * image.width
    return round(pose.x * image.width + x * unit_px), round(pose.y * image.width + y * unit_px)


@pytest.mark.parametrize("seed", range(12))
def test_a_mask_hides_mouth_and_nose_and_leaves_the_eyes(head, seed):
    face, points = head()
    pose = head_pose(points, face.width)
    masked = put_mask_on(face, pose, np.random.default_rng(seed))
    assert masked.size == face.size
    difference = changed(face, masked)
    for y in (0.35, MOUTH_Y):
        column, row = at(pose, face, 0, y)
        assert difference[row - 2 : row + 3, column - 4 : column + 5].mean() > 10
    for x in (-0.33, 0.33):
        column, row = at(pose, face, x, EYES_Y)
        assert difference[row - 2 : row + 3, column - 2 : column + 3].mean() < 5  # resampling alone
    assert difference[:20].mean() < 2


@pytest.mark.parametrize("seed", range(6))
def test_dark_glasses_hide_the_eyes_or_slide_down_the_nose(head, seed):
    face, points = head()
    pose = head_pose(points, face.width)
    difference = changed(face, painted_over(face, pose, np.random.default_rng(seed), _paint_glasses))
    rows, columns = np.nonzero(difference > 40)
    unit_px = pose.unit * face.width
    column, row = at(pose, face, 0, 0)
    assert abs(columns.mean() - column) < 0.15 * unit_px
    assert -0.45 * unit_px < rows.mean() - row < 0.6 * unit_px
    assert rows.max() - row < 0.9 * unit_px  # the chin is not covered


def with_spot(face, pose, radius, colour, **options):
    """The face with a spot below the nose, painted as masks are."""

    def paint(pen, _skin, _rng):
        pen.oval(0, 0.4, radius, radius, colour)

    return np.asarray(painted_over(face, pose, np.random.default_rng(1), paint, **options), np.int16)


def test_details_end_where_what_they_are_painted_on_ends(head):
    face, points = head()
    pose = head_pose(points, face.width)
    plain, detailed = (
        with_spot(face, pose, 0.3, (0, 0, 200), details=details)
        for details in (None, lambda pen, _skin, _rng: pen.oval(0, 0, 3, 3, (200, 0, 0)))
    )
    column, row = at(pose, face, 0, 0.4)
    assert plain[row, column, 2] > plain[row, column, 0] + 50
    assert detailed[row, column, 0] > detailed[row, column, 2] + 50
    unit_px = pose.unit * face.width
    rows, columns = np.indices(plain.shape[:2])
    outside = np.hypot(rows - row, columns - column) > 0.3 * unit_px + 6
    np.testing.assert_array_equal(plain[outside], detailed[outside])


@pytest.mark.parametrize("opacity", [0.25, 0.5, 0.75])
def test_a_thin_cloth_lets_the_face_show_through(head, opacity):
    face, points = head()
    pose = head_pose(points, face.width)
    column, row = at(pose, face, 0, 0.4)
    shown = [with_spot(face, pose, 0.5, (10, 10, 10), opacity=share)[row, column] for share in (0.0, opacity, 1.0)]
    np.testing.assert_allclose(shown[1], (1 - opacity) * shown[0] + opacity * shown[2], atol=2)


def test_masks_look_in_many_ways(head):
    face, points = head()
    pose = head_pose(points, face.width)
    column, row = at(pose, face, 0, 0.5)
    spot = np.s_[row - 4 : row + 5, column - 8 : column + 9]
    pictures = [np.asarray(put_mask_on(face, pose, np.random.default_rng(seed)), float) for seed in range(80)]
    colours = np.array([picture[spot].mean(axis=(0, 1)) for picture in pictures])
    skin = np.asarray(face, float)[at(pose, face, 0, 0.1)[::-1]]
    likeness = colours @ skin / np.linalg.norm(colours, axis=1) / np.linalg.norm(skin)  # of hue: 1 is the same
    assert (likeness > 0.995).sum() >= 5
    assert (likeness < 0.97).sum() >= 20
    assert (colours.mean(axis=1) < 50).sum() >= 8
    assert (colours.mean(axis=1) > 150).sum() >= 8


def test_covers_change_a_face_some_but_not_all(head):
    face, points = head()
    pose = head_pose(points, face.width)
    shares = []
    for seed in range(60):
        difference = changed(face, cover_face(face, pose, np.random.default_rng(seed)))
        shares.append(float((difference > 12).mean()))
    assert min(shares) < 0.1 < np.median(shares) < 0.6
    assert max(shares) < 0.95
    assert sum(share > 0.005 for share in shares) > 55


@pytest.mark.parametrize("paint", [put_mask_on, cover_face])
def test_what_is_painted_depends_on_the_generator_alone(head, paint):
    face, points = head(side_px=90)
    pose = head_pose(points, face.width)
    first = paint(face, pose, np.random.default_rng(3))
    assert np.array_equal(first, paint(face, pose, np.random.default_rng(3)))
    assert not np.array_equal(first, paint(face, pose, np.random.default_rng(4)))


def test_a_face_lands_on_the_one_it_replaces(head):
    scene, scene_points = head(side_px=240, skin=(120, 80, 60), unit=0.15)
    picture, points = head(side_px=100, skin=(250, 210, 190))
    donor = Donor(picture, points, head_pose(points, picture.width))
    for seed in range(8):
        placed = np.asarray(replace_face(scene, scene_points, donor, np.random.default_rng(seed)), np.float64)
        before = np.asarray(scene, np.float64)
        column, row = (round(value) for value in scene_points[2])
        lighter = (
            placed[row - 3 : row + 4, column - 3 : column + 4] - before[row - 3 : row + 4, column - 3 : column + 4]
        )
        assert lighter.mean() > 25
        np.testing.assert_array_equal(placed[:60], before[:60])  # far from the face nothing changes
        np.testing.assert_array_equal(placed[:, :60], before[:, :60])
        # Eyes land on eyes: the darkest spot left of the nose is the scene's left eye, give or take the enlargement.
        window = placed[row - 40 : row, column - 40 : column].mean(axis=-1)
        y, x = np.unravel_index(window.argmin(), window.shape)
        assert np.hypot(x + column - 40 - scene_points[0, 0], y + row - 40 - scene_points[0, 1]) < 8


def test_busts_have_the_asked_size_and_hold_the_face(head):
    picture, points = head(side_px=100, skin=(255, 0, 255))
    donor = Donor(picture, points, head_pose(points, picture.width))
    shares = []
    for seed in range(20):
        surroundings = Image.new("RGB", (50, 40), (0, 90, 0)) if seed % 2 else None
        bust = draw_bust(surroundings, donor, 200, np.random.default_rng(seed))
        assert max(bust.size) == 200
        pixels = np.asarray(bust, np.int16)
        purple = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] > 200)
        shares.append(purple.mean())
    assert 0.02 < np.mean(shares) < 0.35
    assert min(shares) > 0.01
