"""People who walk through a picture: boxes as a detector would give them, and the truth about them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

WIDTH, HEIGHT = 1280.0, 720.0
PICTURE = (WIDTH, HEIGHT)


class Walk(NamedTuple):
    """The path of one person."""

    start: tuple[float, float]
    speed: tuple[float, float]
    side: float
    begin_s: float
    end_s: float


class Seen(NamedTuple):
    """Faces of a video, as arrays, and the person that each belongs to; −1 for a false box."""

    times_us: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    people: np.ndarray


def crowd(seed: int, people: int = 8, seconds: float = 30.0) -> list[Walk]:
    """People who cross from one side to the other by up to 1.5 face sizes per frame, at two frames per second."""
    rng = np.random.default_rng(seed)
    walks = []
    for number in range(people):
        side = rng.uniform(40, 90)
        rightwards = 1 if rng.random() < 0.5 else -1
        speed = rightwards * rng.uniform(0.5, 3.0) * side
        begin = rng.uniform(0, seconds * 0.6)
        x = -side if rightwards > 0 else WIDTH + side
        y = HEIGHT * (number + 0.5) / people + rng.uniform(-10, 10)
        crossing = (WIDTH + 2 * side) / abs(speed)
        walks.append(
            Walk((x, y), (speed, rng.uniform(-0.05, 0.05) * side), side, begin, min(seconds, begin + crossing))
        )
    return walks


def see(
    walks: list[Walk], seed: int, rate: float = 2.0, seconds: float = 30.0, missed: float = 0.0, false: float = 0.0
) -> Seen:
    """The faces of a film at a number of frames per second, with noise, missed faces and false boxes."""
    rng = np.random.default_rng(seed + 1)
    rows = []
    for number in range(int(seconds * rate)):
        time_s = number / rate
        for person, walk in enumerate(walks):
            passed = time_s - walk.begin_s
            if passed < 0 or time_s >= walk.end_s or rng.random() < missed:
                continue
            centre = np.array(walk.start) + np.array(walk.speed) * passed + rng.normal(0, 0.04 * walk.side, 2)
            if not (0 <= centre[0] <= WIDTH and 0 <= centre[1] <= HEIGHT):
                continue
            side = walk.side * np.exp(rng.normal(0, 0.04))
            rows.append((time_s * 1e6, *(centre - side / 2), side, side * 1.2, rng.uniform(0.55, 0.95), person))
        if rng.random() < false:
            rows.append((time_s * 1e6, *rng.uniform(0, 600, 2), 40, 48, rng.uniform(0.36, 0.6), -1))
    found = np.array(rows)
    return Seen(found[:, 0].astype(np.int64), found[:, 1:5], found[:, 5], found[:, 6].astype(int))


def idf1(people: np.ndarray, tracks: np.ndarray) -> float:
    """IDF1 (Ristani et al., 2016), from its definition: 2 IDTP / (2 IDTP + IDFP + IDFN), by the best matching of ids.

    Faces are matched to the truth already: each is a person's or false (−1), and is on a track or on none (−1).
    """
    truth, found = np.unique(people[people >= 0]), np.unique(tracks[tracks >= 0])
    common = np.array([[np.sum((people == one) & (tracks == other)) for other in found] for one in truth])
    rows, columns = linear_sum_assignment(-common)
    hits = common[rows, columns].sum()
    return 2 * hits / (np.sum(people >= 0) + np.sum(tracks >= 0))
