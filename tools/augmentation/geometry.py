"""Where a head is, from the five landmarks that a face detector gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskdet.demo.drawing import EYES_Y, MOUTH_Y, Pose

Points = NDArray[np.float64]

_LARGEST_YAW = 0.3


def head_pose(landmarks: Points, width_px: int) -> Pose | None:
    """The pose in which :mod:`maskdet.demo.drawing` would draw a head with these landmarks.

    Args:
        landmarks: ``(5, 2)``, x and y in pixels: eyes, tip of the nose, corners of the mouth; the left of each pair
            first.
        width_px: the image's width.

    Returns:
        The pose, or ``None`` if the eyes, or eyes and mouth, are nearly one point: a profile, or no face at all.
    """
    eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
    down = mouth - eyes
    length_px = float(np.hypot(*down))
    unit_px = length_px / (MOUTH_Y - EYES_Y)
    if unit_px < 4 or float(np.hypot(*(landmarks[1] - landmarks[0]))) < 0.25 * length_px:
        return None
    centre = eyes - down / length_px * EYES_Y * unit_px
    roll_rad = float(np.arctan2(-down[0], down[1]))
    across = np.array([np.cos(roll_rad), np.sin(roll_rad)])
    yaw = float(np.clip((landmarks[2] - (eyes + mouth) / 2) @ across / unit_px, -_LARGEST_YAW, _LARGEST_YAW))
    return Pose(centre[0] / width_px, centre[1] / width_px, unit_px / width_px, yaw, 0.0, roll_rad)


def similarity(source: Points, target: Points) -> tuple[float, ...]:
    """The rotation, scale and shift that map two points onto two others.

    Args:
        source: ``(2, 2)``, x and y of two points.
        target: ``(2, 2)``, where they are mapped to.

    Returns:
        The coefficients with which ``Image.transform(…, Transform.AFFINE)`` draws the source image into the target's
        frame; they map target to source.
    """
    (ax, ay), (bx, by) = target
    (px, py), (qx, qy) = source
    ratio = complex(qx - px, qy - py) / complex(bx - ax, by - ay)
    shift = complex(px, py) - ratio * complex(ax, ay)
    return ratio.real, -ratio.imag, shift.real, ratio.imag, ratio.real, shift.imag
