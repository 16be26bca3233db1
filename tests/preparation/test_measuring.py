import io

import numpy as np
import pytest
from PIL import Image

from maskdet.errors import AccessDeniedError, NotFoundError, SourceError, StorageError
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.references import ImageRef
from maskdet.preparation.measuring import estimate_jpeg_quality, measure_batch, read_groups
from maskdet.preparation.records import SourceBatch
from maskdet.preparation.settings import LabelledSource
from maskdet.testing import solid_image

FOLDERS = LabelledSource(input=("/data",), labels={"masked": "mask", "bare": "no_mask"}, splits={"t": "train"})


def encoded(size=(40, 30), **save):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, **save)
    return buffer.getvalue()


def measure(uri, data=b"", *, source=FOLDERS, error=None, root="/data", sleep=lambda _: None, **limits):
    """An image's one row, measured or failed, and how often the image was read."""
    reads = []

    def read(asked):
        reads.append(asked)
        if error is not None:
            raise error
        return data

    ref = ImageRef(uri, len(data), "1")
    found = measure_batch(SourceBatch("s", root, (ref,)), source, ImageLimits(**limits), read=read, sleep=sleep)
    (row,) = [*found.images.to_pylist(), *found.failures.to_pylist()]
    return row, len(reads)


@pytest.mark.parametrize("quality", [20, 35, 49, 50, 51, 75, 93, 95, 99])
def test_jpeg_quality_is_that_of_the_encoder(quality):
    image = Image.open(io.BytesIO(encoded(format="JPEG", quality=quality)))
    assert estimate_jpeg_quality(list(image.quantization[0])) == quality


def test_jpeg_quality_stays_within_bounds():
    assert estimate_jpeg_quality([1] * 64) >= 99
    assert estimate_jpeg_quality([255] * 64) <= 12


def test_size_and_format_are_told_by_content_and_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    row, _ = measure("/data/masked/a.png", encoded(format="JPEG", exif=exif))
    assert (row["width_px"], row["height_px"], row["format"]) == (30, 40, "JPEG")


def test_equal_pixels_in_any_batch_have_equal_hashes():
    data = [encoded((n, n), format="PNG") for n in (16, 40, 99)]
    refs = tuple(ImageRef(str(i), -1, "1") for i in range(3))
    source = LabelledSource(input=("x",), label="mask")
    whole = measure_batch(SourceBatch("s", "", refs), source, ImageLimits(), read=lambda uri: data[int(uri)])
    alone = [measure(str(i), data[i], source=source)[0]["phash"] for i in range(3)]
    assert whole.images["phash"].to_pylist() == alone


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("/data/x/a.png", "path_mismatch"),
        ("/data/masked/bare/a.png", "path_mismatch"),
        ("/data/bare.png", "path_mismatch"),
    ],
)
def test_a_path_that_tells_no_label_or_two_is_a_failure_and_not_read(uri, code):
    row, reads = measure(uri)
    assert (row["code"], row["stage"], row["attempts"], reads) == (code, "list", 0, 0)


def test_folders_above_the_input_tell_nothing():
    row, _ = measure("/masked/data/bare/t/a.png", solid_image(9), root="/masked/data")
    assert (row["label"], row["official_split"]) == ("no_mask", "train")


@pytest.mark.parametrize(
    ("error", "code", "reads"),
    [
        (NotFoundError("gone"), "not_found", 1),
        (AccessDeniedError("closed"), "access_denied", 1),
        (StorageError("busy"), "read_error", 4),
    ],
)
def test_what_the_store_refuses_is_a_failure(error, code, reads):
    waits = []
    row, found = measure("/data/bare/a.png", error=error, sleep=waits.append)
    assert (row["code"], row["attempts"], found) == (code, reads, reads)
    # A fifth of a second, doubled each time, varied at random by half either way.
    assert len(waits) == reads - 1
    assert all(0.5 <= wait / (0.2 * 2**i) <= 1.5 for i, wait in enumerate(waits))


def test_limits_are_those_of_scoring():
    assert measure("/data/bare/a.png", solid_image(9), max_bytes=10)[0]["code"] == "too_many_bytes"
    assert measure("/data/bare/a.png", solid_image(9, 24), min_side_px=30)[0]["code"] == "too_few_pixels"
    assert measure("/data/bare/a.png", b"")[0]["code"] == "empty_file"


def test_a_group_manifest_keeps_its_groups_as_written(tmp_path):
    (tmp_path / "groups.csv").write_text("path,source_group\na.png,007\nb.png,\n/c/d.png,x\n")
    source = LabelledSource(
        input=("x",), label="mask", group_manifest=str(tmp_path / "groups.csv"), group_root=str(tmp_path)
    )
    assert read_groups(source) == {f"{tmp_path}/a.png": "007", "/c/d.png": "x"}
    with pytest.raises(SourceError, match="a column 'person'"):
        read_groups(source.model_copy(update={"group_column": "person"}))
