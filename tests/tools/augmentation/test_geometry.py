import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maskdet.demo.drawing import EYES_Y, MOUTH_Y, Pen
from tools.augmentation.geometry import head_pose, similarity

WIDTH_PX = 200


def landmarks(centre, unit_px, roll_rad):
    """Of a frontal head, placed by trigonometry: eyes .33 head units aside, the nose between, mouth .25 aside."""
    turned = [
        (x * np.cos(roll_rad) - y * np.sin(roll_rad), x * np.sin(roll_rad) + y * np.cos(roll_rad))
        for x, y in ((-0.33, EYES_Y), (0.33, EYES_Y), (0, 0.26), (-0.25, MOUTH_Y), (0.25, MOUTH_Y))
    ]
    return np.array(turned) * unit_px + centre


@given(x=st.floats(20, 180), y=st.floats(20, 180), unit_px=st.floats(8, 90), roll_rad=st.floats(-3, 3))
def test_the_pose_of_a_placed_head_is_found(x, y, unit_px, roll_rad):
    pose = head_pose(landmarks((x, y), unit_px, roll_rad), WIDTH_PX)
    assert (pose.x * WIDTH_PX, pose.y * WIDTH_PX, pose.unit * WIDTH_PX) == pytest.approx((x, y, unit_px), abs=1e-6)
    assert pose.roll_rad == pytest.approx(roll_rad, abs=1e-6)
    assert pose.yaw == pytest.approx(0, abs=1e-9)


def test_a_nose_to_the_right_is_a_turn_to_the_right():
    points = landmarks((100, 100), 40, 0)
    points[2, 0] += 4
    assert head_pose(points, WIDTH_PX).yaw == pytest.approx(0.1)
    points[2, 0] += 400
    assert head_pose(points, WIDTH_PX).yaw == 0.3


def test_profiles_and_specks_have_no_pose():
    profile = landmarks((100, 100), 40, 0)
    profile[:2, 0] = (100, 104)
    assert head_pose(profile, WIDTH_PX) is None
    assert head_pose(landmarks((100, 100), 3, 0), WIDTH_PX) is None


def test_drawing_in_the_pose_found_hits_the_eyes():
    image = Image.new("RGB", (WIDTH_PX, 260))
    points = landmarks((90, 120), 50, 0.4)
    pose = head_pose(points, WIDTH_PX)
    Pen(image, pose).oval(-0.33, EYES_Y, 0.08, 0.08, (255, 255, 255))
    ys, xs = np.nonzero(np.asarray(image)[..., 0])
    np.testing.assert_allclose((xs.mean(), ys.mean()), points[0], atol=1.0)


@given(st.tuples(*[st.floats(-100, 100)] * 8))
def test_similarity_leads_from_target_to_source(values):
    source, target = np.array(values[:4]).reshape(2, 2), np.array(values[4:]).reshape(2, 2)
    if np.hypot(*(target[1] - target[0])) < 1:
        return
    a, b, c, d, e, f = similarity(source, target)
    for one, other in zip(target, source, strict=True):
        np.testing.assert_allclose((a * one[0] + b * one[1] + c, d * one[0] + e * one[1] + f), other, atol=1e-6)
    assert (a, b) == (e, -d)  # turned and scaled, never sheared or mirrored
