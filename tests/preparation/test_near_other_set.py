import io

import numpy as np
import pytest
from PIL import Image

from maskdet.images.preprocessing import prepare_image
from maskdet.preparation.similarity import near_duplicates


def picture(seed, size_px=96):
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((size_px, size_px), Image.Resampling.BICUBIC)


def thumbnail(image, **save):
    encoded = io.BytesIO()
    image.save(encoded, **(save or {"format": "PNG"}))
    return prepare_image(encoded.getvalue(), 16, 16).pixels


@pytest.fixture
def others():
    return np.stack([thumbnail(picture(seed)) for seed in range(30)])


def test_copies_in_another_form_are_found(others):
    image = picture(3)
    copies = [
        thumbnail(image, format="JPEG", quality=30),
        thumbnail(image.resize((40, 40))),
        thumbnail(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        thumbnail(image.point(lambda value: value // 2 + 40)),
    ]
    assert near_duplicates(np.stack(copies), others).tolist() == [True] * 4


def test_other_pictures_are_not(others):
    different = np.stack([thumbnail(picture(seed)) for seed in range(100, 140)])
    assert not near_duplicates(different, others).any()


def test_flat_images_match_nothing(others):
    flat = np.full((2, 16, 16, 3), 128, np.uint8)
    assert not near_duplicates(flat, np.concatenate([others, flat])).any()


def test_threshold_is_a_correlation():
    rng = np.random.default_rng(0)
    first, second = (np.repeat(rng.integers(0, 256, (1, 16, 16, 1)), 3, axis=3).astype(np.uint8) for _ in range(2))
    mixed = (first // 2 + second // 2).astype(np.uint8)
    expected = np.corrcoef(first[..., 0].ravel(), mixed[..., 0].ravel())[0, 1]
    assert 0.5 < expected < 0.9
    assert near_duplicates(mixed, first, expected - 1e-3).tolist() == [True]
    assert near_duplicates(mixed, first, expected + 1e-3).tolist() == [False]


def test_more_images_than_fit_one_block(others):
    many = np.concatenate([others] * 40)
    assert near_duplicates(many, others).all()
