"""Metrics of found faces against slow, obvious versions, and intervals against their definitions."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdet.evaluation.annotations import AnnotatedImage
from maskdet.evaluation.detection_matching import SeenImage
from maskdet.evaluation.detection_metrics import FoundFaces, average_precision, match_by_centre, match_by_overlap
from maskdet.evaluation.faces import (
    FALSE_PER_IMAGE,
    RECALL_LEVELS,
    UNMATCHED_PER_IMAGE,
    estimate_faces,
    gather,
    poisson_interval,
)
from maskdet.evaluation.intervals import Bootstrap, wilson_estimate

BOOTSTRAP = Bootstrap(resamples=200)


def overlap(one, other):
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    sizes = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(sizes) - width * height)


def drawn_images(seed, count):
    """Images with faces far apart, most of them found by a box a little off, and false detections between."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        faces, found = [], []
        for place in range(int(rng.integers(0, 5))):
            side = float(np.exp(rng.uniform(np.log(16), np.log(200))))
            box = (place * 1000.0, 0.0, place * 1000.0 + side, side * 0.8)
            label = [None, "mask", "no_mask"][int(rng.integers(3))]
            faces.append((box, label, rng.random() < 0.1))
            if rng.random() < 0.8:
                moved = tuple(edge + shift * side for edge, shift in zip(box, rng.uniform(-0.25, 0.25, 4), strict=True))
                found.append((moved, round(float(rng.uniform(0.4, 1)), 1), ["mask", "no_mask"][int(rng.integers(2))]))
        for _ in range(int(rng.integers(0, 2))):
            found.append(((0.0, 5000.0, 30.0, 5030.0), round(float(rng.uniform(0.4, 1)), 1), "mask"))
        images.append((f"group {number // 2}", faces, found))
    return images


def joined(images):
    seen, row = [], 0
    for number, (group, faces, found) in enumerate(images):
        boxes = np.array([box for box, _, _ in faces], np.float32).reshape(-1, 4)
        ignored = np.array([skip for _, _, skip in faces], bool)
        truth = AnnotatedImage(str(number), boxes, tuple(label for _, label, _ in faces), ignored)
        shown = FoundFaces(
            np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in found], np.float32),
            tuple(label for _, _, label in found),
        )
        rows = np.arange(row, row + len(found))
        matches = (match_by_centre(shown, boxes, ignored), match_by_overlap(shown, boxes, ignored))
        seen.append(SeenImage(str(number), group, 1, 1, "", truth, shown, rows, *matches))
        row += len(found)
    return seen


def centred(one, other):
    """Whether the centre of each box lies inside the other."""
    return all(
        outer[low] < (inner[low] + inner[low + 2]) / 2 < outer[low + 2]
        for outer, inner in ((one, other), (other, one))
        for low in (0, 1)
    )


def near(box, other):
    return overlap(box, other) >= 0.3 or centred(box, other)


def at_half(box, other):
    return overlap(box, other) >= 0.5


def counted(images, same):
    """Found, labelled right, false: by going through every face and every detection."""
    asked, labelled, false = [], [], 0
    for _, faces, found in images:
        for box, label, skip in faces:
            hits = [said for other, _, said in found if same(box, other)]
            if not skip:
                side = max(np.float32(box[2]) - np.float32(box[0]), np.float32(box[3]) - np.float32(box[1]))
                asked.append((side, bool(hits)))
                labelled += [(side, label, label in hits)] if label is not None else []
        false += sum(not any(same(box, other) for box, _, _ in faces) for other, _, _ in found)
    return asked, labelled, false


@pytest.mark.parametrize("seed", range(4))
def test_figures_are_those_of_slow_code(seed):
    # A detection half in an ignored box is not false, whatever the overlap: tested by hand with the matching.
    images = [image for image in drawn_images(seed, 60) if not any(skip for _, _, skip in image[1])]
    estimates = estimate_faces(gather(joined(images)), BOOTSTRAP)
    ranges = {"_16_to_32_px": (16, 32), "_32_to_64_px": (32, 64), "_from_64_px": (64, 1e9), "_from_32_px": (32, 1e9)}
    found, labelled, unmatched = counted(images, near)
    overlapping, _, false = counted(images, at_half)
    assert found != overlapping  # some boxes are so far off that they match only by the centre
    for name, (low, high) in {**ranges, "": (0, 1e9)}.items():
        for metric, asked in (("found", found), ("recall", overlapping)):
            hits = [hit for side, hit in asked if low <= side < high]
            estimate = estimates[f"{metric}{name}"]
            assert (estimate.value, estimate.count) == (np.mean(hits), len(hits))
        right = [good for side, _, good in labelled if low <= side < high]
        assert estimates[f"end_to_end{name}"].value == np.mean(right)
    for name in ("mask", "no_mask"):
        right = [good for _, label, good in labelled if label == name]
        assert estimates[f"end_to_end_{name}"].value == np.mean(right)
    assert estimates[UNMATCHED_PER_IMAGE].value == unmatched / len(images)
    assert estimates[FALSE_PER_IMAGE].value == false / len(images)


def test_precision_at_a_recall_is_the_best_of_all_scores():
    outcomes = gather(joined(drawn_images(5, 60)))
    estimates = estimate_faces(outcomes, BOOTSTRAP)
    scores, hits, _ = outcomes.by_overlap
    for name, level in RECALL_LEVELS.items():
        points = [(hits[scores >= low].sum() / len(outcomes.found), hits[scores >= low].mean()) for low in set(scores)]
        expected = max((precision for recall, precision in points if recall >= level), default=None)
        assert estimates[name].value == (None if expected is None else pytest.approx(expected))
    assert estimates["precision_at_recall_0.5"].low < estimates["precision_at_recall_0.5"].high


def test_average_precision_s_interval_is_that_of_images_drawn_again():
    images = drawn_images(9, 60)
    outcomes = gather(joined(images))
    found = estimate_faces(outcomes, Bootstrap(0.9, 2000, 1))["average_precision"]
    rng = np.random.default_rng(77)
    groups = [[image for image in images if image[0] == f"group {number}"] for number in range(30)]
    values = []
    for _ in range(300):
        again = gather(joined([image for number in rng.integers(30, size=30) for image in groups[number]]))
        values.append(average_precision(*again.by_overlap[:2], len(again.found)))
    assert found.low == pytest.approx(np.quantile(values, 0.05), abs=0.02)
    assert found.high == pytest.approx(np.quantile(values, 0.95), abs=0.02)
    assert found.value == average_precision(*outcomes.by_overlap[:2], len(outcomes.found))


def test_intervals_of_shares_hold_wilson_s_and_the_same_seed_gives_the_same():
    outcomes = gather(joined(drawn_images(3, 50)))
    one, again = (estimate_faces(outcomes, BOOTSTRAP) for _ in range(2))
    assert one == again
    plain = wilson_estimate("recall", outcomes.overlapping.sum(), len(outcomes.found), 0.95)
    assert one["recall"].low <= plain.low < plain.value < plain.high <= one["recall"].high
    assert one["found"].method == one["recall"].method == "wilson, widened by images"


@given(st.integers(0, 500), st.integers(1, 1000), st.sampled_from([0.8, 0.95, 0.99]))
def test_ends_of_a_rate_s_interval_lie_z_standard_errors_off(count, exposure, confidence):
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    low, high = poisson_interval(count, exposure, confidence)
    assert 0 <= low <= count / exposure < high
    assert high * exposure - count == pytest.approx(z * math.sqrt(high * exposure))
    if count:
        assert count - low * exposure == pytest.approx(z * math.sqrt(low * exposure))
