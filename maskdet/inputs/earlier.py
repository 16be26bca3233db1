"""Compares what a run lists with what its output holds: images added, changed, gone, or outside the run's reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import FailureCode
from maskdet.inputs import columns
from maskdet.inputs.listing import ListTask, look_up
from maskdet.inputs.references import ImageRef
from maskdet.inputs.videos import SEGMENTS

ADDED, CHANGED, UNCHANGED = "added", "changed", "unchanged"
GONE, REMOVED = "gone", "removed"
DISPLACED = "displaced"
"""An image with rows whose path or list row no longer fits, although its file is unchanged: the rows stay."""
LOST = "lost"
"""An image with rows that can no longer be read as listed: a failure takes their place."""
ABSENT = "absent"
"""An image with rows that the input still names, but whose file is gone: the rows stay."""
OUTSIDE = "outside"
CHANGES = (ADDED, CHANGED, UNCHANGED, GONE, ABSENT, REMOVED, DISPLACED, LOST, OUTSIDE)

# Faults of a path or a list row, not of the file: a wrong template, a wrong root, a spoilt list.
_OF_THE_LISTING = (FailureCode.PATH_MISMATCH, FailureCode.BAD_MANIFEST_ROW)


@dataclass(frozen=True)
class Coverage:
    """Which images a run's input would list if they existed.

    Folders cover what lies in them, globs what they match, lists what they name. Where all that the output holds came
    from the run's own inputs, the run covers everything.

    Attributes:
        everything: whether all earlier images are covered.
        folders: locations of the input's folders.
        globs: the input's globs.
    """

    everything: bool = False
    folders: tuple[str, ...] = ()
    globs: tuple[str, ...] = ()

    @classmethod
    def of(cls, tasks: Sequence[ListTask], inputs: Iterable[str], earlier_inputs: Iterable[str]) -> Coverage:
        """The coverage of a run over inputs, given those of all runs before it."""
        return cls(
            everything=set(earlier_inputs) <= set(inputs),
            folders=tuple(task.uri for task in tasks if task.kind == "folder"),
            globs=tuple(task.uri for task in tasks if task.kind == "glob"),
        )

    def test(self) -> Callable[[str], bool]:
        """A function that tells whether a URI is covered."""
        if self.everything:
            return lambda uri: True
        prefixes = tuple(f"{folder}/" for folder in self.folders)
        matchers = [storage.glob_matcher(glob) for glob in self.globs]
        return lambda uri: uri.startswith(prefixes) or any(matches(uri) for matches in matchers)


@dataclass(frozen=True)
class Growth:
    """How a run adds to what its output holds.

    Attributes:
        coverage: of the run's input.
        on_gone: what becomes of images that are covered but not listed, or listed but missing.
        believes_versions: whether a list gives versions, so that stores were not asked whether its images are there.
    """

    coverage: Coverage
    on_gone: Literal["keep", "remove"] = "keep"
    believes_versions: bool = False

    def resolve(self, found: pa.RecordBatch) -> tuple[pa.RecordBatch, Counter[str]]:
        """Join images listed with those of earlier runs.

        Args:
            found: columns of both kinds; those of earlier runs are marked as gone and have their slot. Within a kind
                each URI appears once at most; for a video, each segment.

        Returns:
            The images of the data set after the run, and how many there are of each kind of change; under
            :data:`SEGMENTS`, by how many segments the data set exceeds the listing.
        """
        if columns.has_segments(found):
            images, changes = self._resolve_refs(list(map(ImageRef._make, columns.rows_of(found))))
            return columns.columns_of(images), changes
        listed, earlier = found.filter(pc.invert(found["gone"])), found.filter(found["gone"])
        before = pc.index_in(listed["uri"], value_set=earlier["uri"])
        known = listed.filter(before.is_valid())
        matched = earlier.take(before.drop_null())
        is_same = _are_same(known, matched)
        marks = {"earlier": matched["earlier"], "absent": pa.repeat(False, known.num_rows)}
        unchanged = columns.replaced(known, marks).filter(pa.array(is_same))
        # Changed images are rare, so they are examined one by one.
        others = [part.filter(pa.array(~is_same)) for part in (known, matched)]
        images, changes = self._resolve_refs([ImageRef._make(row) for part in others for row in columns.rows_of(part)])
        added = listed.filter(before.is_null())
        left, left_changes = self._unlisted(earlier.filter(_are_none_of(earlier["uri"], known["uri"])))
        changes.update({UNCHANGED: unchanged.num_rows, ADDED: added.num_rows, **left_changes})
        return columns.joined([unchanged, columns.columns_of(images), added, left]), +changes

    def _unlisted(self, earlier: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[str, int]]:
        """What becomes of images of earlier runs that are not listed."""
        covered = self.coverage.test()
        is_covered = np.array([covered(uri) for uri in earlier["uri"].to_pylist()], bool)
        count = int(is_covered.sum())
        outside = {OUTSIDE: earlier.num_rows - count}
        left = columns.replaced(earlier, {"absent": pa.repeat(False, earlier.num_rows)})
        if self.on_gone == "remove":
            return left.filter(pa.array(~is_covered)), {REMOVED: count, **outside}
        return left, {GONE: count, **outside}

    def _resolve_refs(self, refs: Sequence[ImageRef]) -> tuple[list[ImageRef], Counter[str]]:
        """The same for references, some of which may be segments of videos."""
        listed = {ref.name: ref for ref in refs if not ref.gone}
        earlier = {ref.name: ref for ref in refs if ref.gone}
        if self.believes_versions and self.on_gone == "keep":
            _look_for_changed(listed, earlier)
        more = self._restore_absent(listed, earlier)
        files = {ref.uri for ref in listed.values()}
        lost = _lost_videos(listed.values(), earlier.values()) if self.on_gone == "remove" else frozenset()
        covered, changes, images = self.coverage.test(), _Changes(), []
        for name, ref in listed.items():
            image, change = _joined(ref, earlier.get(name))
            changes.add(ref, REMOVED if ref.uri in lost else change)
            images.append(image)
        for name, ref in earlier.items():
            if name in listed:
                continue
            if ref.uri in files:  # a video that is now cut differently
                changes.add(ref, REMOVED if ref.uri in lost else CHANGED)
                continue
            change = OUTSIDE if not covered(ref.uri) else REMOVED if self.on_gone == "remove" else GONE
            changes.add(ref, change)
            if change != REMOVED:
                images.append(ref._replace(absent=False))
        return images, changes.counts() + Counter({SEGMENTS: more})

    def _restore_absent(self, listed: dict[str, ImageRef], earlier: Mapping[str, ImageRef]) -> int:
        """Replace images and videos that are listed but missing by what earlier runs know of them.

        Returns:
            How many segments of videos this adds.
        """
        absent = {ref.uri: ref for ref in listed.values() if _is_absent(ref)} if self.on_gone == "keep" else {}
        known: dict[str, list[ImageRef]] = {}
        for ref in earlier.values() if absent else ():
            if ref.uri in absent and _had_rows(ref) and (ref.segment is None) == (absent[ref.uri].segment is None):
                known.setdefault(ref.uri, []).append(ref)
        more = 0
        for uri, before in known.items():
            now = listed.pop(absent[uri].name)
            listed.update((ref.name, ref._replace(gone=False, absent=True, location=now.location)) for ref in before)
            more += len(before) - 1
        return more


def _are_same(listed: pa.RecordBatch, before: pa.RecordBatch) -> NDArray[np.bool_]:
    """Whether each image is as it was, ``(images,)``: whether its :attr:`ImageRef.identity` is the same."""
    found = [_are_equal(listed[name], before[name]) for name in columns.IDENTITY]
    keys, keys_before = listed["keys"], before["keys"]
    counts, counts_before = pc.list_value_length(keys), pc.list_value_length(keys_before)
    if counts.equals(counts_before):
        values = _are_equal(keys.flatten(), keys_before.flatten())
        of = np.repeat(np.arange(len(keys)), np.asarray(counts))
        found.append(np.bincount(of[~values], minlength=len(keys)) == 0)
    else:
        pairs = zip(columns.keys_of(listed), columns.keys_of(before), strict=True)
        found.append(np.array([one == other for one, other in pairs], bool))
    same: NDArray[np.bool_] = np.logical_and.reduce(found)
    return same


def _are_equal(some: pa.Array, others: pa.Array) -> NDArray[np.bool_]:
    """Whether values are equal, or both null."""
    both_null = pc.and_(some.is_null(), others.is_null())
    return np.asarray(pc.or_(pc.fill_null(pc.equal(some, others), False), both_null))


def _are_none_of(values: pa.Array, others: pa.Array) -> pa.BooleanArray:
    return pc.invert(pc.is_in(values, value_set=others))


def _joined(ref: ImageRef, before: ImageRef | None) -> tuple[ImageRef, str]:
    """A listed image as the data set has it after the run, and the kind of change since before."""
    if before is None:
        return ref, ADDED
    if ref.absent and ref.earlier:
        return ref, ABSENT
    if before.identity == ref.identity:
        return ref._replace(earlier=before.earlier, absent=False), UNCHANGED
    loses_rows = _is_absent(ref) and _had_rows(before) and before.problem is None  # to its failure
    if loses_rows or ref.problem is None or before.problem is not None:
        # The worker that reads it may find that it is missing: then its earlier rows are lost, too.
        had_rows = ref.problem is None and before.problem is None and _had_rows(before) and not loses_rows
        return ref._replace(replaces=before.earlier if had_rows else ""), REMOVED if loses_rows else CHANGED
    # The image itself is unchanged: only its keys can no longer be read, and those are known from before.
    is_whole = ref.segment is None and bool(ref.version) and ref.version == before.version
    if is_whole and ref.problem[0] in _OF_THE_LISTING:
        return before._replace(gone=False, absent=False, location=ref.location, replaces=before.earlier), DISPLACED
    return ref, LOST


def _is_absent(ref: ImageRef) -> bool:
    """Whether an image or a video was listed but is missing: a name in a list, or a link that leads nowhere."""
    return ref.absent or (ref.problem is not None and ref.problem[0] == FailureCode.NOT_FOUND)


def _had_rows(before: ImageRef) -> bool:
    """Whether an earlier run may have found something to look at: there was a version, if only a list's."""
    return bool(before.version) and not before.absent


def _look_for_changed(listed: dict[str, ImageRef], earlier: Mapping[str, ImageRef]) -> None:
    """Mark images as absent that a list says have changed, and that are missing: their rows are all there will be."""
    changed = [
        ref
        for name, ref in listed.items()
        if ref.segment is None and ref.problem is None and not ref.absent
        if (before := earlier.get(name)) is not None and _had_rows(before) and before.identity != ref.identity
    ]
    for ref, (_, is_absent) in zip(changed, look_up([ref.place for ref in changed]), strict=True):
        if is_absent:
            listed[ref.name] = ref._replace(absent=True)


def _lost_videos(listed: Iterable[ImageRef], earlier: Iterable[ImageRef]) -> frozenset[str]:
    """Videos that are listed but missing, and that have rows of segments."""
    absent = {ref.uri for ref in listed if ref.segment is not None and _is_absent(ref)}
    return frozenset(ref.uri for ref in earlier if ref.uri in absent and _had_rows(ref) and ref.problem is None)


class _Changes:
    """Counts changes of images and of whole videos."""

    def __init__(self) -> None:
        self._images = Counter[str]()
        self._videos: dict[str, set[str]] = {}

    def add(self, ref: ImageRef, change: str) -> None:
        """Count an image, or note a segment."""
        if ref.segment is None:
            self._images[change] += 1
        else:
            self._videos.setdefault(ref.uri, set()).add(change)

    def counts(self) -> Counter[str]:
        """How many there are of each kind; a video whose segments have different kinds counts as changed."""
        kinds = (next(iter(kinds)) if len(kinds) == 1 else CHANGED for kinds in self._videos.values())
        return self._images + Counter(kinds)
