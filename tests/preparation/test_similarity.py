import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.preparation import hashing, similarity
from maskdet.preparation.settings import DuplicateSettings
from maskdet.preparation.similarity import close_pairs, find_near


def brute_force(left, right, max_bits):
    return [
        (i, j)
        for i, a in enumerate(left.tolist())
        for j, b in enumerate(right.tolist())
        if (a ^ b).bit_count() <= max_bits
    ]


def clustered(seed, count, spread_bits):
    """Hashes around a few centres, with so many bits flipped at most."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, 3, dtype=np.uint64)
    flips = [
        sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, spread_bits + 1), replace=False))
        for _ in range(count)
    ]
    return np.array([int(rng.choice(centres)) ^ flip for flip in flips], np.uint64)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), max_bits=st.integers(0, 9), count=st.integers(0, 25))
def test_close_pairs_are_those_of_all_pairs(seed, max_bits, count):
    left, right = clustered(seed, count, max_bits + 2), clustered(seed, 12, max_bits + 2)
    first, second = close_pairs(left, right, max_bits)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == brute_force(left, right, max_bits)


@pytest.mark.parametrize("max_bits", range(13))
def test_bits_spread_over_the_bands_in_the_worst_way_are_found(max_bits):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        flips = [sum(1 << (16 * (i % 4) + int(rng.integers(4)) * 4 + i // 4) for i in range(n)) for n in range(14)]
        others = np.array(flips, np.uint64)
        _, second = close_pairs(np.zeros(1, np.uint64), others, max_bits)
        assert second.tolist() == [i for i, flip in enumerate(flips) if flip.bit_count() <= max_bits]


def test_chunks_change_nothing(monkeypatch):
    hashes = clustered(1, 60, 4)
    whole = close_pairs(hashes, hashes, 6)
    monkeypatch.setattr(similarity, "_CHUNK_PAIRS", 7)
    assert all((a == b).all() for a, b in zip(whole, close_pairs(hashes, hashes, 6), strict=True))


def pictures(count, seed=0):
    """Random pictures with coarse structure, as photographs have: RGB ``(count, 32, 32, 3)``."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(8, 248, (count, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
    # Without noise some coefficients would be 0, which mirroring cannot negate.
    return (coarse + rng.integers(-8, 9, coarse.shape)).astype(np.uint8)


def near(images, **limits):
    hashes = np.array([hashing.perceptual_hash(image) for image in images], np.uint64)
    thumbnails = np.stack([hashing.thumbnail(image) for image in images])
    return find_near(hashes, thumbnails, DuplicateSettings(**limits))


def rows(pairs):
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.mirrored.tolist(), strict=True))


def test_copies_and_mirrored_copies_are_found_once_and_others_not():
    images = pictures(12)
    brighter = (images[2] // 2 + 100).astype(np.uint8)
    found = near(np.stack([*images, images[0], images[1][:, ::-1], brighter]))
    assert rows(found) == [(0, 12, False), (1, 13, True), (2, 14, False)]
    assert found.distance_bits[:2].tolist() == [0, 0]
    assert found.correlation[:2].tolist() == pytest.approx([1.0, 1.0])


def test_a_picture_that_is_its_own_mirror_image_counts_as_plain():
    half = pictures(1)[0][:, :16]
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    assert rows(near(np.stack([image, image]))) == [(0, 1, False)]


def test_close_hashes_without_correlation_are_no_pair():
    images = pictures(2)
    thumbnails = np.stack([hashing.thumbnail(image) for image in images])
    equal = np.array([5, 5], np.uint64)
    assert len(find_near(equal, thumbnails, DuplicateSettings()).first) == 0
    assert len(close_pairs(equal, equal, 0)[0]) == 4


def test_flat_pictures_match_nothing():
    assert len(near(np.full((5, 32, 32, 3), 90, np.uint8)).first) == 0


def test_no_picture_at_all_gives_no_pair():
    found = find_near(np.zeros(0, np.uint64), np.zeros((0, 16, 16), np.uint8), DuplicateSettings())
    assert len(found.first) == 0
