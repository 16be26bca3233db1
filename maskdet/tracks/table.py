"""From the rows of a video to its tracks, as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskdet.labels import Decision
from maskdet.schemas import tracks_schema
from maskdet.sections import TrackSettings
from maskdet.tracks.linking import LinkRule, link_faces
from maskdet.tracks.voting import find_changes, vote

BOX = ("face_left_px", "face_top_px", "face_width_px", "face_height_px")
PROBABILITIES = ("probability_mask", "probability_incorrect", "probability_no_mask")
COLUMNS = ("image_uri", "captured_at", "frame_time_us", "face_index", *BOX, "face_score", *PROBABILITIES, "label")
"""Columns of predictions that tracks are made of, in addition to the keys."""


def track_video(rows: pa.Table, key_names: Sequence[str], settings: TrackSettings, decision: Decision) -> pa.Table:
    """The tracks of one video.

    Args:
        rows: predictions of the video's frames, in any order, at least one, all with a box: :data:`COLUMNS`,
            ``width_px``, ``height_px`` and the keys.
        key_names: all keys.
        settings: what links faces, and what counts as a change.
        decision: the run's thresholds.

    Returns:
        One row per track, of :func:`maskdet.schemas.tracks_schema`, by number. A track has the keys of its first face.
    """
    rows = rows.sort_by([("frame_time_us", "ascending"), ("face_index", "ascending")]).combine_chunks()
    picture = float(pc.max(rows["width_px"]).as_py()), float(pc.max(rows["height_px"]).as_py())
    boxes = np.stack([rows[name].to_numpy().astype(np.float64) for name in BOX], axis=1)
    scores = rows["face_score"].to_numpy().astype(np.float64)
    times = rows["frame_time_us"].to_numpy()
    found = link_faces(times, boxes, scores, LinkRule(settings.max_gap_seconds, settings.sure_from), picture)
    tracks = [np.flatnonzero(found == number) for number in range(int(found.max(initial=-1)) + 1)]
    made = [_row(rows, members, boxes, scores, settings, decision) for members in tracks]
    keys = {name: [rows[name][int(members[0])].as_py() for members in tracks] for name in key_names}
    columns = {
        "track": list(range(len(tracks))),
        **{name: [row[name] for row in made] for name in (made[0] if made else ())},
        **keys,
    }
    return pa.table({name: columns.get(name, []) for name in tracks_schema(key_names).names}, tracks_schema(key_names))


def _row(
    rows: pa.Table,
    members: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    settings: TrackSettings,
    decision: Decision,
) -> dict[str, object]:
    """A track's columns except its number and its keys."""
    of = rows.take(pa.array(members))
    mask = of["probability_mask"].to_numpy().astype(np.float64)
    incorrect = None
    if decision.incorrect_from is not None and of["probability_incorrect"].null_count == 0:
        incorrect = of["probability_incorrect"].to_numpy().astype(np.float64)
    voted = vote(mask, incorrect, decision)
    times = of["frame_time_us"].to_pylist()
    # The largest of the sure ones is what a person wants to see.
    best = int(np.argmax(scores[members] * np.sqrt(boxes[members, 2] * boxes[members, 3])))
    return {
        "image_uri": of["image_uri"][0].as_py(),
        "captured_at": of["captured_at"][0].as_py(),
        "first_us": times[0],
        "last_us": times[-1],
        "frames": len(times),
        "best_us": times[best],
        **{name: float(boxes[members[best], side]) for side, name in enumerate(BOX)},
        "face_score": float(scores[members[best]]),
        "probability_mask": voted.mask,
        "probability_incorrect": voted.incorrect,
        "probability_no_mask": voted.no_mask,
        "label": voted.label,
        "changes": [
            change._asdict() for change in find_changes(times, of["label"].to_pylist(), settings.change_frames)
        ],
        "faces": [
            {"frame_time_us": time, "face_index": index}
            for time, index in zip(times, of["face_index"].to_pylist(), strict=True)
        ],
    }
