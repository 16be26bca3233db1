"""Leakage groups and group-disjoint splits: pure functions whose results do not depend on any order."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from maskdet.preparation.settings import Split, SplitSettings


def components(count: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Connected components of ``0 … count − 1``: for each, the smallest index of its component."""
    parent = list(range(count))
    for first, second in edges:
        low, high = sorted((_root(parent, first), _root(parent, second)))
        parent[high] = low  # the smaller one is the root, so that roots name components
    return [_root(parent, i) for i in range(count)]


def star_edges(keys: Sequence[Hashable | None]) -> list[tuple[int, int]]:
    """Edges that join everything with a key to the first that has it; ``None`` is not a key."""
    first: dict[Hashable, int] = {}
    return [(first.setdefault(key, i), i) for i, key in enumerate(keys) if key is not None]


def group_ids(roots: Sequence[int], content_sha256: Sequence[str], flat: Sequence[bool]) -> list[str]:
    """A name for each image's group that depends on its content alone: the smallest SHA-256 of its members.

    Args:
        roots: the component of each image.
        content_sha256: of each image.
        flat: whether each image shows nothing. Several groups may have the same flat content, so it names a group only
            if there is nothing else; flat images on their own then form one group per content.
    """
    smallest: dict[int, tuple[bool, str]] = {}
    for root, digest, is_flat in zip(roots, content_sha256, flat, strict=True):
        smallest[root] = min(smallest.get(root, (is_flat, digest)), (is_flat, digest))
    return [smallest[root][1] for root in roots]


def assign_splits(
    groups: Sequence[str], strata: Sequence[tuple[str, ...]], settings: SplitSettings
) -> dict[str, Split]:
    """Cut groups into train, validation and test, alike in every stratum.

    A group belongs to the stratum of most of its images. Within a stratum, groups are lined up in the order of their
    hashes, each as long as its number of images; a group goes to the split in which its middle is. So shares hold by
    images, to within a group, and images added later move only the groups at the cuts.

    Args:
        groups: the group of each image.
        strata: the stratum of each image, such as source and label.
        settings: shares and seed.

    Returns:
        The split of each group.
    """
    members: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        members[group][stratum] += 1
    by_stratum: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for group, counts in members.items():
        by_stratum[min(counts, key=lambda stratum: (-counts[stratum], stratum))].append(group)
    found: dict[str, Split] = {}
    for names in by_stratum.values():
        ordered = sorted(names, key=lambda group: hashlib.sha256(f"{settings.seed}:{group}".encode()).digest())
        sizes = [members[group].total() for group in ordered]
        total, before = sum(sizes), 0
        for group, size in zip(ordered, sizes, strict=True):
            found[group] = _split_at((before + size / 2) / total, settings.shares)
            before += size
    return found


def in_hash_band(group: str, band: tuple[float, float]) -> bool:
    """Whether the group's SHA-256, its first 8 bytes read as a fraction of 1, lies in ``[from, to)``."""
    fraction = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    return band[0] <= fraction < band[1] or (band[1] == 1.0 and fraction >= 1.0)


def _split_at(fraction: float, shares: Mapping[Split, float]) -> Split:
    end = 0.0
    last: Split = "train"
    for split, share in shares.items():
        if share > 0:
            end, last = end + share, split
            if fraction < end:
                return split
    return last


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]  # halves the path, so that long chains stay cheap
        node = parent[node]
    return node
