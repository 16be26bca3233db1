"""The weakest slice, by mean recalls that are worked out here by hand."""

from __future__ import annotations

import numpy as np
import pytest

from maskdet.compliance.intervals import wilson_interval
from maskdet.evaluation.classes import LabelledFaces, balanced_accuracy
from maskdet.evaluation.intervals import Bootstrap
from maskdet.evaluation.slice_figures import figures_of_three, slice_figures, weakest
from maskdet.evaluation.slices import ALL, Slice
from maskdet.labels import CODES

BOOTSTRAP = Bootstrap(resamples=50)


def faces_of(*rows, groups=None):
    """Faces of (truth, label, how many)."""
    truth, labels, numbers = zip(*rows, strict=True)
    repeated = [np.repeat([CODES[name] for name in names], numbers).astype(np.int8) for names in (truth, labels)]
    return LabelledFaces(*repeated, {}, groups)


def test_it_is_the_mean_recall_of_the_classes_that_occur():
    # Recalls of 8 in 10, 1 in 4 and 5 in 5.
    rows = [("mask", "mask", 8), ("mask", "uncertain", 2), ("incorrect", "mask", 3), ("incorrect", "incorrect", 1)]
    found = balanced_accuracy(faces_of(*rows, ("no_mask", "no_mask", 5)), BOOTSTRAP)
    assert found.value == pytest.approx((0.8 + 0.25 + 1.0) / 3)
    ends = [wilson_interval(hits, faces, 0.95) for hits, faces in ((8, 10), (1, 4), (5, 5))]
    down = sum((p - end.low) ** 2 for p, end in zip((0.8, 0.25, 1.0), ends, strict=True)) ** 0.5 / 3
    assert found.low == pytest.approx(found.value - down)
    assert found.count == 19
    assert balanced_accuracy(faces_of(*rows), BOOTSTRAP).value == pytest.approx((0.8 + 0.25) / 2)
    nothing = balanced_accuracy(faces_of(("mask", "mask", 0)), BOOTSTRAP)
    assert (nothing.value, nothing.low, nothing.count) == (None, None, 0)


def test_groups_widen_its_interval():
    rows = [("mask", "mask", 10), ("mask", "no_mask", 10), ("no_mask", "no_mask", 20)]
    groups = np.repeat([0, 1, 2, 3], [10, 10, 10, 10])  # all of a person's faces have the same label
    plain, grouped = (balanced_accuracy(faces_of(*rows, groups=one), BOOTSTRAP) for one in (None, groups))
    assert plain.value == grouped.value == 0.75
    assert grouped.low < plain.low and grouped.method.endswith("widened by groups")


@pytest.mark.parametrize("of_incorrect", [1, 3])
def test_a_class_that_is_never_recognised_makes_its_slice_the_weakest(of_incorrect):
    """Telling masks from bare faces alone, every slice is perfect."""
    near = [("mask", "mask", 20), ("no_mask", "no_mask", 20)]
    far = [("mask", "mask", 9), ("mask", "no_mask", 1), ("no_mask", "no_mask", 10), ("incorrect", "mask", of_incorrect)]
    faces = faces_of(*near, *far)
    is_far = np.arange(len(faces.truth)) >= 40
    pieces = [Slice(ALL, np.ones(len(is_far), bool)), Slice("near", ~is_far), Slice("far", is_far)]
    figures = slice_figures(faces, pieces, {}, figures_of_three(faces, pieces, BOOTSTRAP))
    assert {one.name: one.lacking for one in figures} == {ALL: (), "near": ("incorrect",), "far": ()}
    least = weakest(figures)
    assert (least.name, least.balanced.value) == ("far", pytest.approx((0.9 + 1.0 + 0.0) / 3))
    assert least.faces == {"mask": 10, "incorrect": of_incorrect, "no_mask": 10}


def test_no_slice_is_the_weakest_where_all_lack_a_class():
    faces = faces_of(("mask", "mask", 2), ("no_mask", "mask", 2))
    pieces = [Slice(ALL, np.ones(4, bool)), Slice("a", faces.truth == CODES["mask"])]
    assert weakest(slice_figures(faces, pieces, {}, figures_of_three(faces, pieces, BOOTSTRAP))) is None
