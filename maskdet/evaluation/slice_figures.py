"""Each slice by one figure that slices may be compared by, and the weakest of them.

The figure is the mean recall of the classes: of mask and no_mask or, where the model or the truth has three classes, of
all three. Slices are compared where they have every class that the data have: the mean over fewer is another figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from maskdet.evaluation import slices
from maskdet.evaluation.classes import LabelledFaces, balanced_accuracy
from maskdet.evaluation.intervals import Bootstrap, Estimate
from maskdet.labels import CODES, INCORRECT, THREE_CLASSES


class SliceFigure(NamedTuple):
    """A slice."""

    name: str
    faces: Mapping[str, int]
    """True class → faces."""
    balanced: Estimate
    """Mean recall of the classes; of three, of those that the slice has."""
    lacking: tuple[str, ...]
    """Classes that the data have, and the slice has not."""


def figures_of_three(faces: LabelledFaces, pieces: Sequence[slices.Slice], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Mean recall of the classes in each slice.

    Args:
        faces: all faces with known truth.
        pieces: the slices.
        bootstrap: confidence, resamples and seed.
    """
    return {piece.name: balanced_accuracy(faces.select(piece.keep), bootstrap) for piece in pieces}


def slice_figures(
    faces: LabelledFaces,
    pieces: Sequence[slices.Slice],
    by_slice: Mapping[str, Sequence[Estimate]],
    of_three: Mapping[str, Estimate] | None,
) -> list[SliceFigure]:
    """The slices in their order, each with its figure.

    Args:
        faces: all faces with known truth.
        pieces: the slices.
        by_slice: name of a slice → metrics of two classes.
        of_three: name of a slice → its figure of three; ``None``: there are two.
    """
    of_two = {name: one for name, found in by_slice.items() for one in found if one.metric == "balanced_accuracy"}
    balanced = of_two if of_three is None else of_three
    names = [name for name in THREE_CLASSES if of_three is not None or name != INCORRECT]
    present = [name for name in names if (faces.truth == CODES[name]).any()]
    found = []
    for piece in pieces:
        truth = faces.truth[piece.keep]
        counts: dict[str, int] = {name: int((truth == CODES[name]).sum()) for name in names}
        lacking = tuple(name for name in present if not counts[name])
        found.append(SliceFigure(piece.name, counts, balanced[piece.name], lacking))
    return found


def weakest(figures: Sequence[SliceFigure]) -> SliceFigure | None:
    """The slice with the least figure among those with every class; ``None`` if there is none."""
    whole = [one for one in figures if one.name != slices.ALL and not one.lacking and one.balanced.value is not None]
    return min(whole, key=lambda one: (one.balanced.value or 0.0, one.name), default=None)
