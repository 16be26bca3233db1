"""Link faces from frame to frame: constant velocity, assignment by distance, faint faces second.

Frames are taken in the order of their times. Each track predicts where its face is now from where it was and how it
moved. Faces and tracks are paired so that the sum of costs is least, where a pair costs its distance and its change of
size, and staying alone costs as much as the worst pair allowed. Sure faces come first and faint ones second, so that a
face which turns or blurs stays on its track while faint boxes start none (as ByteTrack does: Zhang et al., ECCV 2022).

At two frames a second the boxes of a person who walks do not overlap, so distance counts, in sizes of the face, and not
overlap. The result depends on the set of faces alone, not on their order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NO_TRACK = -1

# How far a face may be from where it is predicted, in sizes of it: at once, and more with each second. A face that was
# seen once may move by 6 of its sizes a second (a person at 1 m/s); one whose speed is known strays by a third of it.
_REACH = 0.5
_REACH_FIRST = 6.0
_REACH_MOVING = 2.0
# Beyond this, a face that was not seen could be anywhere; a wider reach would only take other people's faces.
_MOST_REACH_S = 1.0
_MOST_LOG_RATIO = float(np.log(2.0))
"""Largest change of a face's size from one time to the next that it was seen."""
_ALONE = 2.0
"""What staying alone costs: as much as a pair at the end of its reach, whose size has doubled."""
_SMOOTHING = 0.5


class LinkRule(NamedTuple):
    """What links faces.

    Attributes:
        max_gap_s: how long a face may be out of sight.
        sure_from: detection score from which on a face may start a track.
    """

    max_gap_s: float = 2.0
    sure_from: float = 0.4


class _Track:
    """A face as it was last seen."""

    def __init__(self, number: int, time_s: float, centre: Floats, size: float) -> None:
        self.number, self.time_s, self.centre, self.size = number, time_s, centre, size
        self.speed: Floats = np.zeros(2)
        """Pixels a second."""
        self.seen = 1

    def foretold(self, time_s: float) -> Floats:
        """Where its centre is expected."""
        place: Floats = self.centre + self.speed * (time_s - self.time_s)
        return place

    def reach(self, time_s: float) -> float:
        """How far from there it may be, in sizes of the face."""
        passed_s = min(time_s - self.time_s, _MOST_REACH_S)
        return _REACH + (_REACH_FIRST if self.seen == 1 else _REACH_MOVING) * passed_s

    def follow(self, time_s: float, centre: Floats, size: float) -> None:
        """Continue the track with a face."""
        speed = (centre - self.centre) / (time_s - self.time_s)
        self.speed = speed if self.seen == 1 else _SMOOTHING * self.speed + (1 - _SMOOTHING) * speed
        self.time_s, self.centre, self.size = time_s, centre, size
        self.seen += 1


def link_faces(
    times_us: Integers, boxes: Floats, scores: Floats, rule: LinkRule, picture: tuple[float, float]
) -> Integers:
    """Number the tracks of one video's faces.

    Args:
        times_us: when each face was seen, in microseconds, int64 ``(faces,)``.
        boxes: left, top, width and height of each in pixels, float64 ``(faces, 4)``.
        scores: the detector's, 0 to 1, float64 ``(faces,)``.
        rule: what links them.
        picture: width and height of the picture in pixels: whoever is predicted to be outside it has left.

    Returns:
        The track of each face, int64 ``(faces,)``; :data:`NO_TRACK` of a faint face that lies on none. Tracks are
        numbered from 0 by when they begin, and from left to right where several begin at once.
    """
    order = np.lexsort((scores, boxes[:, 3], boxes[:, 2], boxes[:, 1], boxes[:, 0], times_us))
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    sizes = np.sqrt(np.maximum(boxes[:, 2] * boxes[:, 3], 1.0))
    found = np.full(len(boxes), NO_TRACK, np.int64)
    active: list[_Track] = []
    begun = 0
    ordered = times_us[order]
    moments = np.unique(ordered)
    ends = np.searchsorted(ordered, moments, side="right")
    for moment, begin, end in zip(moments, [0, *ends], ends, strict=False):
        faces = order[begin:end]
        time_s = float(moment) / 1e6
        active = [track for track in active if time_s - track.time_s <= rule.max_gap_s]
        left = [track for track in active if _is_inside(track.foretold(time_s), picture)]
        sure, faint = faces[scores[faces] >= rule.sure_from], faces[scores[faces] < rule.sure_from]
        for some in (sure, faint):
            pairs = _pair(left, some, centres, sizes, time_s)
            for track, face in pairs:
                track.follow(time_s, centres[face], float(sizes[face]))
                found[face] = track.number
            taken = {track.number for track, _ in pairs}
            left = [track for track in left if track.number not in taken]
        for face in sure[found[sure] == NO_TRACK]:
            active.append(_Track(begun, time_s, centres[face], float(sizes[face])))
            found[face] = begun
            begun += 1
    return found


def _is_inside(place: Floats, picture: tuple[float, float]) -> bool:
    return bool(0 <= place[0] <= picture[0] and 0 <= place[1] <= picture[1])


def _pair(
    tracks: list[_Track], faces: Integers, centres: Floats, sizes: Floats, time_s: float
) -> list[tuple[_Track, int]]:
    """Tracks and the faces that continue them."""
    if not tracks or not len(faces):
        return []
    from scipy.optimize import linear_sum_assignment  # takes a third of a second to import

    foretold = np.stack([track.foretold(time_s) for track in tracks])
    reaches = np.array([track.reach(time_s) for track in tracks])
    last = np.array([track.size for track in tracks])
    distances = np.linalg.norm(foretold[:, None] - centres[faces][None], axis=2)
    far = distances / (np.sqrt(last[:, None] * sizes[faces][None]) * reaches[:, None])
    grown = np.abs(np.log(sizes[faces][None] / last[:, None])) / _MOST_LOG_RATIO
    costs = np.where((far <= 1) & (grown <= 1), np.minimum(far + grown, _ALONE), _ALONE)
    rows, columns = linear_sum_assignment(costs)
    return [
        (tracks[row], int(faces[column]))
        for row, column in zip(rows, columns, strict=True)
        if costs[row, column] < _ALONE
    ]
