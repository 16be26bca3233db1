"""Drawn heads whose landmarks are known, instead of photographs and a detector."""

import numpy as np
import pytest
from PIL import Image

from maskdet.demo.drawing import EYES_Y, MOUTH_Y
from maskdet.faces.decoding import Detections, no_detections

SKIN = (200, 150, 120)
UNIT = 0.3  # half the head's height as a share of the picture's width


@pytest.fixture(scope="session")
def head():
    """Make a picture of one head: ``(image, landmarks (5, 2))``; plain skin, background and eyes, nothing else."""

    def make(side_px=160, skin=SKIN, ground=(60, 90, 60), unit=UNIT):
        y, x = (np.mgrid[0:side_px, 0:side_px] + 0.5) / side_px - 0.5
        pixels = np.empty((side_px, side_px, 3), np.uint8)
        pixels[:] = ground
        pixels[(x / (0.76 * unit)) ** 2 + (y / unit) ** 2 < 1] = skin
        points = np.array([(-0.33, EYES_Y), (0.33, EYES_Y), (0, 0.26), (-0.25, MOUTH_Y), (0.25, MOUTH_Y)])
        for eye in points[:2] * unit:
            pixels[np.hypot(x - eye[0], y - eye[1]) < 0.08 * unit] = (20, 20, 20)
        return Image.fromarray(pixels), (points * unit + 0.5) * side_px

    return make


@pytest.fixture(scope="session")
def detect(head):
    """A detector that recognises the fixture's heads by their size alone."""

    def find(pixels):
        if pixels.std() < 1:
            return no_detections()
        side_px = pixels.shape[1]
        _, points = head(side_px)
        reach = UNIT * side_px
        box = np.array([[0.5 * side_px - reach, 0.5 * side_px - reach, 0.5 * side_px + reach, 0.5 * side_px + reach]])
        length_px = np.array([2 * reach], np.float32)
        landmarks = points[np.newaxis].astype(np.float32)
        return Detections(box.astype(np.float32), np.array([0.9], np.float32), landmarks, length_px)

    return find
