import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from maskdet.demo.drawing import draw_face
from maskdet.images.preprocessing import prepare_image
from maskdet.preparation import hashing

FLIP = Image.Transpose.FLIP_LEFT_RIGHT


def face(seed, size_px=160, masked=False):
    return draw_face(np.random.default_rng(seed), size_px, masked)


def pixels_of(image, **save):
    encoded = io.BytesIO()
    image.save(encoded, **(save or {"format": "PNG"}))
    return prepare_image(encoded.getvalue(), hashing.SIDE_PX, hashing.SIDE_PX).pixels


def hash_of(image, **save):
    return hashing.perceptual_hash(pixels_of(image, **save))


def distance(first, second):
    return (first ^ second).bit_count()


def slow_hash(pixels):
    """The definition, coefficient by coefficient, in floating point."""
    grey = (pixels.astype(float) * [77, 150, 29]).sum(axis=-1)
    order = sorted((u + v, u, v) for u in range(32) for v in range(32) if u + v)[:64]
    bits, margins = 0, []
    x = np.arange(32)
    for i, (_, u, v) in enumerate(order):
        wave = np.cos(np.pi * (2 * x[:, None] + 1) * v / 64) * np.cos(np.pi * (2 * x[None] + 1) * u / 64)
        coefficient = (grey * wave).sum()
        margins.append(abs(coefficient))
        bits |= int(coefficient > 0) << i
    return bits, np.array(margins)


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_is_the_signs_of_the_lowest_dct_coefficients(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    expected, margins = slow_hash(pixels)
    # Cosines are rounded to 1/4096; a coefficient as small as that allows may have either sign.
    unsure = sum(1 << i for i in np.flatnonzero(margins < 65280 * 32 * 2 / 4096))
    assert (hashing.perceptual_hash(pixels) ^ expected) & ~unsure == 0
    assert unsure.bit_count() < 3


@pytest.mark.parametrize("seed", range(4))
def test_a_picture_in_another_form_stays_close(seed):
    image = face(seed)
    own = hash_of(image)
    others = {
        "smaller": hash_of(image.resize((70, 70))),
        "larger": hash_of(image.resize((400, 400), Image.Resampling.BICUBIC)),
        "squeezed": hash_of(image.resize((160, 120))),
        "compressed": hash_of(image, format="JPEG", quality=30),
        "darker": hash_of(ImageEnhance.Brightness(image).enhance(0.7)),
        "less contrast": hash_of(ImageEnhance.Contrast(image).enhance(0.6)),
    }
    assert {name: distance(own, other) for name, other in others.items() if distance(own, other) > 8} == {}


def test_other_faces_are_far():
    hashes = [hash_of(face(seed)) for seed in range(24)]
    distances = [distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 8
    assert np.median(distances) > 16


@pytest.mark.parametrize("seed", range(4))
def test_the_hash_of_a_mirrored_picture_is_known_from_its_own(seed):
    pixels = pixels_of(face(seed))
    flipped = hashing.perceptual_hash(pixels[:, ::-1])
    assert int(hashing.mirrored(np.array([hashing.perceptual_hash(pixels)], np.uint64))[0]) == flipped
    assert distance(hash_of(face(seed).transpose(FLIP)), flipped) <= 4


def test_mirroring_twice_changes_nothing():
    hashes = np.random.default_rng(0).integers(0, 2**64, 100, dtype=np.uint64)
    assert (hashing.mirrored(hashing.mirrored(hashes)) == hashes).all()


def test_brightness_alone_changes_no_bit():
    pixels = np.random.default_rng(1).integers(0, 200, (32, 32, 3)).astype(np.uint8)
    assert hashing.perceptual_hash(pixels) == hashing.perceptual_hash(pixels + 50)


def test_a_thumbnail_is_the_mean_of_four_grey_pixels():
    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    grey = (pixels.astype(float) * np.array([77, 150, 29]) / 256).sum(axis=-1)
    expected = grey.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    assert np.abs(hashing.thumbnail(pixels) - expected).max() < 1


def test_correlations_are_pearsons():
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 256, (2, 20, 16, 16)).astype(np.uint8)
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(hashing.correlations(first, second), expected, atol=1e-12)


def test_a_single_value_correlates_with_nothing():
    flat = np.full((1, 16, 16), 7, np.uint8)
    assert hashing.correlations(flat, flat).tolist() == [0.0]


def test_flat_means_a_standard_deviation_under_the_limit():
    rng = np.random.default_rng(4)
    thumbnails = np.stack([128 + rng.normal(0, sigma, (16, 16)) for sigma in (0, 1, 1.9, 2.2, 5, 40)]).astype(np.uint8)
    assert hashing.is_flat(thumbnails).tolist() == (thumbnails.std(axis=(1, 2)) < hashing.MIN_CONTRAST).tolist()
    assert hashing.is_flat(thumbnails).any() and not hashing.is_flat(thumbnails).all()
