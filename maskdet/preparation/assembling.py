"""From measured images to the training manifest: duplicates, groups, splits, leaks and suspicious labels. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskdet.errors import SourceError
from maskdet.preparation import grouping, hashing
from maskdet.preparation.records import duplicates_schema, failures_schema, images_schema, measured_schema
from maskdet.preparation.settings import PrepareSettings
from maskdet.preparation.similarity import NearPairs, find_near

REPEATED = "duplicate"
_ORDER = [("source", "ascending"), ("image_uri", "ascending")]


@dataclass(frozen=True)
class Prepared:
    """The tables of a preparation, and what else the report needs.

    Attributes:
        images: of :func:`images_schema`, by source and URI.
        failures: of :func:`failures_schema`, by source and URI.
        duplicates: of :func:`duplicates_schema`, by first and second image.
        listed: images and other files listed.
        skipped: files that were left out without being failures, by reason.
        leaks_by_content: official validation or test images whose group is in official train even if groups consist of
            exact and near duplicates alone, by split.
        given_groups: images with a group from a manifest or file name, by source.
    """

    images: pa.Table
    failures: pa.Table
    duplicates: pa.Table
    listed: int
    skipped: Mapping[str, int]
    leaks_by_content: Mapping[str, int]
    given_groups: Mapping[str, int]


class _Contents(NamedTuple):
    """Distinct contents of the images."""

    first: list[int]
    """Row of the first image of each content."""
    of_row: list[int]
    """The content of each row."""


def assemble(
    measured: Sequence[pa.Table],
    failures: Sequence[pa.Table],
    listed: int,
    skipped: Mapping[str, int],
    settings: PrepareSettings,
) -> Prepared:
    """Make the training manifest of measured images.

    Args:
        measured: of :func:`measured_schema`, in any order.
        failures: of :func:`failures_schema`, in any order.
        listed: images and other files listed.
        skipped: files left out while listing, by reason.
        settings: the preparation's.

    Returns:
        The same tables for any order and any batches of the input.

    Raises:
        SourceError: one file is listed with both labels.
    """
    images, repeated = _once(pa.concat_tables([measured_schema().empty_table(), *measured]))
    failed, repeated_failures = _once(pa.concat_tables([failures_schema().empty_table(), *failures]))
    contents = _contents_of(images)
    near = _find_near(images, contents, settings)
    flat = hashing.is_flat(_thumbnails(images)).tolist() if images.num_rows else []
    content_edges = _content_edges(contents, near, flat)
    digests = images["content_sha256"].to_pylist()
    groups = _groups([*content_edges, *_given_edges(images, settings)], digests, flat)
    strata = list(zip(images["source"].to_pylist(), images["label"].to_pylist(), strict=True))
    split_of = grouping.assign_splits(groups, strata, settings.splits)
    columns = {
        **{name: images[name] for name in images_schema().names if name in images.column_names},
        "split": [split_of[group] for group in groups],
        "group_id": groups,
        **_duplicate_columns(images, contents, near),
        "flat": flat,
        "official_leak": _leaks(images, groups),
    }
    repeats = repeated + repeated_failures
    return Prepared(
        images=pa.table(columns, schema=images_schema()),
        failures=failed,
        duplicates=_duplicates(images, contents, near),
        listed=listed,
        skipped={**skipped, **({REPEATED: repeats} if repeats else {})},
        leaks_by_content=_count_leaks(images, _groups(content_edges, digests, flat)),
        given_groups=_given_groups(images),
    )


def _once(table: pa.Table) -> tuple[pa.Table, int]:
    """One row per URI, from the first source that lists it, by source and URI; and how many rows were dropped."""
    order = ["image_uri", "source", *(name for name in table.column_names if name not in ("image_uri", "source"))]
    ordered = table.sort_by([(name, "ascending") for name in order if name != "thumbnail"])
    uris = ordered["image_uri"].to_pylist()
    new = [i == 0 or uri != uris[i - 1] for i, uri in enumerate(uris)]
    if "label" in table.column_names and not all(new):
        labels = ordered["label"].to_pylist()
        for i, is_new in enumerate(new):
            if not is_new and labels[i] != labels[i - 1]:
                raise SourceError("label", "one label a file", f"both for {uris[i]}", "Make the sources disjoint.")
    return ordered.filter(pa.array(new, pa.bool_())).sort_by(_ORDER), len(new) - sum(new)


def _contents_of(images: pa.Table) -> _Contents:
    number: dict[str, int] = {}
    first: list[int] = []
    of_row: list[int] = []
    for row, digest in enumerate(images["content_sha256"].to_pylist()):
        if number.setdefault(digest, len(first)) == len(first):
            first.append(row)
        of_row.append(number[digest])
    return _Contents(first, of_row)


def _find_near(images: pa.Table, contents: _Contents, settings: PrepareSettings) -> NearPairs:
    """Near duplicates among contents; indices refer to contents."""
    chosen = images.select(["phash", "thumbnail"]).take(pa.array(contents.first, pa.int64()))
    hashes = np.asarray(chosen["phash"].to_numpy(), np.uint64)
    return find_near(hashes, _thumbnails(chosen), settings.duplicates)


def _thumbnails(images: pa.Table) -> NDArray[np.uint8]:
    side = hashing.THUMBNAIL_SIDE_PX
    return np.frombuffer(b"".join(images["thumbnail"].to_pylist()), np.uint8).reshape(-1, side, side)


def _content_edges(contents: _Contents, near: NearPairs, flat: Sequence[bool]) -> list[tuple[int, int]]:
    """Edges between images with the same bytes or picture, as rows.

    Equal flat images join nothing: a black copy in each of many groups says nothing about the groups, yet would chain
    them (17 of k12's augmented files are black).
    """
    first = contents.first
    exact = [(first[content], row) for row, content in enumerate(contents.of_row) if not flat[row]]
    return exact + [(first[a], first[b]) for a, b in zip(near.first.tolist(), near.second.tolist(), strict=True)]


def _given_edges(images: pa.Table, settings: PrepareSettings) -> list[tuple[int, int]]:
    """Edges of the groups in a manifest, shared by all sources that name it, and of groups by file names."""
    sources = images["source"].to_pylist()
    manifests = [settings.sources[source].group_manifest for source in sources]
    edges: list[tuple[int, int]] = []
    for name, spaces in (("given_group", manifests), ("name_group", sources)):
        values = images[name].to_pylist()
        keys = [None if value is None else (space, value) for space, value in zip(spaces, values, strict=True)]
        edges += grouping.star_edges(keys)
    return edges


def _groups(edges: list[tuple[int, int]], digests: Sequence[str], flat: Sequence[bool]) -> list[str]:
    return grouping.group_ids(grouping.components(len(digests), edges), digests, flat)


def _duplicate_columns(images: pa.Table, contents: _Contents, near: NearPairs) -> dict[str, list[object]]:
    uris, labels = images["image_uri"].to_pylist(), images["label"].to_pylist()
    label_sets: defaultdict[int, set[str]] = defaultdict(set)
    for row, content in enumerate(contents.of_row):
        label_sets[content].add(labels[row])
    count: Counter[int] = Counter()
    suspicious = {content for content, found in label_sets.items() if len(found) > 1}
    for first, second in zip(near.first.tolist(), near.second.tolist(), strict=True):
        count.update((first, second))
        if len(label_sets[first] | label_sets[second]) > 1:
            suspicious.update((first, second))
    firsts = [contents.first[content] for content in contents.of_row]
    return {
        "duplicate_of": [None if row == first else uris[first] for row, first in enumerate(firsts)],
        "near_duplicates": [count[content] for content in contents.of_row],
        "suspicious": [content in suspicious for content in contents.of_row],
    }


def _duplicates(images: pa.Table, contents: _Contents, near: NearPairs) -> pa.Table:
    exact = [(contents.first[content], row) for row, content in enumerate(contents.of_row)]
    exact = [(first, row) for first, row in exact if first != row]
    near_rows = [
        (contents.first[a], contents.first[b]) for a, b in zip(near.first.tolist(), near.second.tolist(), strict=True)
    ]
    rows = [*exact, *near_rows]
    sides = {
        f"{prefix}{name}": images[name].take(pa.array([row[side] for row in rows], pa.int64()))
        for side, prefix in enumerate(("", "other_"))
        for name in ("source", "image_uri", "label", "official_split")
    }
    kinds = ["exact"] * len(exact) + ["mirrored" if flip else "near" for flip in near.mirrored.tolist()]
    found = {
        "kind": kinds,
        "distance_bits": [0] * len(exact) + near.distance_bits.tolist(),
        "correlation": [1.0] * len(exact) + near.correlation.tolist(),
    }
    order = ("source", "image_uri", "other_source", "other_image_uri")
    return pa.table({**sides, **found}, schema=duplicates_schema()).sort_by([(name, "ascending") for name in order])


def _leaks(images: pa.Table, groups: list[str]) -> list[bool]:
    """Whether each image is official validation or test, and its group holds an official training image."""
    splits = images["official_split"].to_pylist()
    trained = {group for group, split in zip(groups, splits, strict=True) if split == "train"}
    return [split in ("validation", "test") and group in trained for group, split in zip(groups, splits, strict=True)]


def _count_leaks(images: pa.Table, groups: list[str]) -> dict[str, int]:
    leaked = zip(images["official_split"].to_pylist(), _leaks(images, groups), strict=True)
    return dict(sorted(Counter(split for split, leak in leaked if leak).items()))


def _given_groups(images: pa.Table) -> dict[str, int]:
    has_group = pc.or_(pc.is_valid(images["given_group"]), pc.is_valid(images["name_group"]))
    return dict(sorted(Counter(images["source"].filter(has_group).to_pylist()).items()))
