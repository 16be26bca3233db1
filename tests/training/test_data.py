import hashlib
import io
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskdet.errors import SourceError
from maskdet.images.preprocessing import prepare_image
from maskdet.preparation.grouping import in_hash_band
from maskdet.training.augment import make_views, move
from maskdet.training.data import data_folder, decode, fingerprint, list_labelled
from maskdet.training.recipe import Augmentation, DataSource

SOURCE = DataSource(mask="with", no_mask="without")


def png(seed, size=(20, 16)):
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture
def root(tmp_path):
    """Three masked and two unmasked images."""
    for name, seed in {
        "with/a.png": 1,
        "with/b.png": 2,
        "with/deep/c.PNG": 3,
        "without/d.png": 4,
        "without/e.png": 5,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(seed))
    (tmp_path / "with" / "notes.txt").write_text("no image")
    return tmp_path


def test_class_1_is_mask_and_paths_are_relative(root):
    found = [(image.path, image.label) for image in list_labelled([SOURCE], str(root))]
    assert found == [
        ("with/a.png", 1),
        ("with/b.png", 1),
        ("with/deep/c.PNG", 1),
        ("without/d.png", 0),
        ("without/e.png", 0),
    ]


def test_globs_and_absolute_folders(root):
    source = DataSource(mask="with/*.png", no_mask=str(root / "without"), repeats=3)
    found = list_labelled([source], str(root))
    assert [image.path for image in found] == ["with/a.png", "with/b.png", "without/d.png", "without/e.png"]
    assert {image.repeats for image in found} == {3}


def test_decoded_as_scoring_decodes(root):
    arrays = decode(list_labelled([SOURCE], str(root)), 10, 12)
    assert arrays.pixels.shape == (5, 1, 10, 12, 3)
    assert arrays.pixels.dtype == np.uint8
    assert arrays.labels.tolist() == [1, 1, 1, 0, 0]
    for row, seed in enumerate([1, 2, 3, 4, 5]):
        np.testing.assert_array_equal(arrays.pixels[row, 0], prepare_image(png(seed), 10, 12).pixels)


def test_fingerprint_is_the_documented_hash(root):
    listed = list_labelled([SOURCE], str(root))
    lines = [
        f"{path}\t{hashlib.sha256((root / path).read_bytes()).hexdigest()}\t{label}\n"
        for path, label in [
            ("with/a.png", 1),
            ("with/b.png", 1),
            ("with/deep/c.PNG", 1),
            ("without/d.png", 0),
            ("without/e.png", 0),
        ]
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert decode(listed, 8, 8).fingerprint == expected
    assert decode(listed[::-1], 8, 8).fingerprint == expected
    (root / "with" / "a.png").write_bytes(png(99))
    assert decode(listed, 8, 8).fingerprint != expected
    assert fingerprint([("with/a.png", "00", 1)]) != fingerprint([("with/a.png", "00", 0)])


def test_unreadable_images_are_named_and_left_out(root, caplog):
    (root / "with" / "b.png").write_bytes(png(2)[:60])
    (root / "without" / "empty.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        arrays = decode(list_labelled([SOURCE], str(root)), 8, 8)
    assert [path for path, _ in arrays.unreadable] == ["with/b.png", "without/empty.png"]
    assert [image.path for image in arrays.images] == [
        "with/a.png",
        "with/deep/c.PNG",
        "without/d.png",
        "without/e.png",
    ]
    assert len(arrays.pixels) == len(arrays.labels) == len(arrays.content_sha256) == 4
    np.testing.assert_array_equal(arrays.pixels[1, 0], prepare_image(png(3), 8, 8).pixels)
    assert "with/b.png" in caplog.text
    assert "without/empty.png" in caplog.text


def test_class_without_images_is_refused(root):
    with pytest.raises(
        SourceError, match=r"class no_mask: expected images .*received 'none under .*/nowhere'.*MASKDET_DATA"
    ):
        list_labelled([DataSource(mask="with", no_mask="nowhere")], str(root))


def test_class_without_readable_images_is_refused(root):
    for path in (root / "without").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(SourceError, match=r"some of each class.*'no_mask': 0, 'mask': 3.*2 unreadable"):
        decode(list_labelled([SOURCE], str(root)), 8, 8)


def test_file_with_both_labels_is_refused(root):
    with pytest.raises(SourceError, match=r"one class per file.*with/a\.png"):
        list_labelled([DataSource(mask="with", no_mask="with")], str(root))


def test_hash_bands_split_groups_without_overlap(tmp_path):
    for label in ("with", "without"):
        (tmp_path / label).mkdir()
        for person in range(40):
            for shot in range(2):
                (tmp_path / label / f"p{person}_{shot}.png").write_bytes(b"")

    def names(band):
        source = DataSource(mask="with", no_mask="without", group_pattern=r"^(p\d+)_", hash_band=band)
        return {image.path for image in list_labelled([source], str(tmp_path))}

    first, second = names((0.0, 0.5)), names((0.5, 1.0))
    assert not first & second
    assert len(first | second) == 160
    assert 40 < len(first) < 120
    for path in first:
        person = path.split("/")[1].split("_")[0]
        assert int(hashlib.sha256(person.encode()).hexdigest()[:16], 16) < 2**63  # the first half of 64 bits
        assert {f"with/{person}_0.png", f"with/{person}_1.png"} <= first


def test_hash_band_ends():
    fraction = int(hashlib.sha256(b"anna").hexdigest()[:16], 16) / 2**64
    assert in_hash_band("anna", (fraction, 1.0))
    assert not in_hash_band("anna", (0.0, fraction))


def test_data_folder_is_taken_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKDET_DATA", "/elsewhere")
    assert data_folder() == "/elsewhere"
    monkeypatch.delenv("MASKDET_DATA")
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert data_folder().endswith("project/data")


def test_views_differ_from_each_other_but_not_from_run_to_run():
    settings = Augmentation(copies=6)
    views = make_views(png(1, (90, 120)), 32, 40, settings, np.random.default_rng(7))
    assert views.shape == (6, 32, 40, 3)
    assert views.dtype == np.uint8
    assert len({view.tobytes() for view in views}) == 6
    np.testing.assert_array_equal(views, make_views(png(1, (90, 120)), 32, 40, settings, np.random.default_rng(7)))


def test_views_of_large_and_small_files_are_equally_sharp():
    """An image at twice the size gives views of the same detail, so that a model cannot recognise the resolution."""

    def detail(size):
        smooth = Image.open(io.BytesIO(png(3, (12, 12)))).resize((size, size), Image.Resampling.BICUBIC)
        encoded = io.BytesIO()
        smooth.save(encoded, "PNG")
        settings = Augmentation(copies=60, max_rotation_degrees=0.0)
        views = make_views(encoded.getvalue(), 64, 64, settings, np.random.default_rng(1)).astype(float)
        return np.abs(np.diff(views, axis=2)).mean()

    assert detail(100) == pytest.approx(detail(400), rel=0.05)


@pytest.mark.parametrize("size", [(9, 200), (200, 9), (8, 8), (900, 700)])
def test_views_of_odd_shapes(size):
    views = make_views(png(1, size), 24, 24, Augmentation(copies=12), np.random.default_rng(0))
    assert views.shape == (12, 24, 24, 3)


@pytest.fixture
def manifest(root):
    """A training manifest over the images of ``root`` and two that are left out, and its marker that it is finished."""
    rows = [
        ("one", "with/a.png", "mask", "train", "train", "g1", False, False),
        ("one", "with/b.png", "mask", "test", "train", "g2", False, False),
        ("two", "with/deep/c.PNG", "mask", None, "train", "g3", False, False),
        ("one", "without/d.png", "no_mask", "train", "train", "g4", False, False),
        ("two", "without/e.png", "no_mask", None, "validation", "g5", False, False),
        ("two", "without/f.png", "no_mask", None, "train", "g6", True, False),
        ("two", "without/g.png", "no_mask", None, "train", "g7", False, True),
    ]
    names = ("source", "image_uri", "label", "official_split", "split", "group_id", "suspicious", "flat")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    columns["image_uri"] = [str(root / path) for path in columns["image_uri"]]
    (root / "m").mkdir()
    pq.write_table(pa.table(columns), root / "m" / "images.parquet")
    (root / "m" / "_SUCCESS").write_text("")
    return str(root / "m" / "images.parquet")


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({}, ["with/a.png", "with/b.png", "with/deep/c.PNG", "without/d.png"]),
        ({"official_splits": ["train"]}, ["with/a.png", "with/deep/c.PNG", "without/d.png"]),
        ({"sources": ["two"]}, ["with/deep/c.PNG"]),
        ({"split": "validation"}, ["without/e.png"]),
    ],
)
def test_a_split_of_a_manifest_without_doubtful_images(root, manifest, changes, paths):
    found = list_labelled([DataSource(manifest=manifest, repeats=2, **changes)], str(root))
    assert [image.path for image in found] == paths
    assert [image.label for image in found] == [int(path.startswith("with/")) for path in paths]
    assert {image.repeats for image in found} == {2}


def test_hash_bands_of_a_manifest_go_by_its_groups(root, manifest):
    bands = ((0.0, 0.5), (0.5, 1.0))
    parts = [list_labelled([DataSource(manifest=manifest, hash_band=band)], str(root)) for band in bands]
    assert sorted(image.path for part in parts for image in part) == [
        "with/a.png", "with/b.png", "with/deep/c.PNG", "without/d.png",
    ]  # fmt: skip
    groups = {"with/a.png": "g1", "with/b.png": "g2", "with/deep/c.PNG": "g3", "without/d.png": "g4"}
    for part, band in zip(parts, bands, strict=True):
        assert all(in_hash_band(groups[image.path], band) for image in part)


def test_motion_blur_draws_a_dot_out_along_a_line():
    pixels = np.zeros((41, 41, 3), np.uint8)
    pixels[20, 20] = 255
    for seed in range(10):
        moved = np.asarray(move(Image.fromarray(pixels), 10.0, np.random.default_rng(seed)), np.float64)[..., 0]
        y, x = np.mgrid[0:41, 0:41] - 20.0
        total = moved.sum()
        assert total == pytest.approx(255.0, rel=0.2)  # rounding to whole grey values
        assert abs((moved * x).sum() / total) < 0.5
        assert abs((moved * y).sum() / total) < 0.5
        spread = np.cov(np.stack([x.ravel(), y.ravel()]), aweights=moved.ravel())
        across, along = np.linalg.eigvalsh(spread)
        assert along == pytest.approx(10.0**2 / 12, rel=0.35)  # the variance of a uniform streak
        assert across < 0.6
    flat = Image.new("RGB", (30, 20), (10, 200, 90))
    assert np.array_equal(move(flat, 7.0, np.random.default_rng(0)), flat)  # edges are extended
