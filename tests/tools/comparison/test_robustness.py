"""Views of faces, and the metrics of a model's probabilities on them."""

import io

import numpy as np
import pytest
from PIL import Image

from maskdet.compliance.intervals import wilson_interval
from maskdet.errors import SourceError
from maskdet.evaluation.metrics import MASK, NO_MASK
from maskdet.images.preprocessing import prepare_image
from maskdet.labels import THREE_CLASSES, TWO_CLASSES, Decision
from maskdet.testing import brightness_model, solid_image
from tools.comparison.robustness import PLAIN, View, first_of_each_class, measure, rows_of, sample_of, views_of
from tools.comparison.settings import RobustnessSettings


@pytest.mark.parametrize(
    ("view", "size"),
    [
        (View("", side_px=50), (25, 50)),
        (View("", side_px=1000), (500, 1000)),
        (View("", width_px=50), (50, 100)),
        (View("", blur=0.1), (100, 200)),
        (View("", side_px=1), (1, 1)),  # never without pixels
    ],
)
def test_views_keep_the_aspect_ratio(view, size):
    encoded = Image.open(io.BytesIO(view.encode(Image.new("RGB", (100, 200)))))
    assert (encoded.format, encoded.size) == ("JPEG", size)


def test_blur_spreads_an_edge_over_its_radius():
    image = Image.new("RGB", (200, 100))
    image.paste((255, 255, 255), (100, 0, 200, 100))
    blurred = Image.open(io.BytesIO(View("", blur=0.05, jpeg_quality=95).encode(image)))
    row = np.asarray(blurred.convert("L"))[50].astype(float)
    # A Gaussian of 10 pixels: .159 and .841 of the step one radius before and behind the edge.
    assert row[[90, 109]] / 255 == pytest.approx([0.159, 0.841], abs=0.03)
    assert row[[60, 140]] / 255 == pytest.approx([0, 1], abs=0.01)


def test_every_size_comes_sharp_and_blurred_and_every_width_once():
    views = views_of(RobustnessSettings(data=("a",), sides_px=(24, 500), widths_px=(112,), blur=0.02, jpeg_quality=70))
    assert [(v.side_px, v.width_px, v.blur) for v in views] == [
        (None, None, 0.0),
        (24, None, 0.0),
        (500, None, 0.0),
        (24, None, 0.02),
        (500, None, 0.02),
        (None, 112, 0.0),
    ]
    assert views[0].name == PLAIN
    assert len({view.name for view in views}) == len(views)
    assert {view.jpeg_quality for view in views[1:]} == {70}


def test_the_first_of_each_class_are_chosen_by_content():
    labels = ["mask", "no_mask", "mask", "mask", "no_mask"]
    contents = ["c", "z", "a", "b", "y"]
    assert first_of_each_class(labels, contents, 2) == [1, 2, 3, 4]
    assert first_of_each_class(labels, contents, 1) == [2, 4]
    assert first_of_each_class(labels, contents, None) == [0, 1, 2, 3, 4]


def test_a_solid_face_looks_alike_in_every_view(tmp_path):
    greys = [0, 51, 102, 153, 204, 255, 20, 30, 40, 50]
    uris = []
    for number, grey in enumerate(greys):
        (tmp_path / f"{number}.png").write_bytes(solid_image(grey, side_px=40))
        uris.append(str(tmp_path / f"{number}.png"))
    views = views_of(RobustnessSettings(data=("a",), sides_px=(24, 90)))
    one, other = measure([brightness_model(16), brightness_model(32)], uris, views, threads=2)
    assert one.shape == (len(views), len(greys), 2)
    assert one[..., 1] == pytest.approx(np.tile(np.array(greys) / 255, (len(views), 1)), abs=2 / 255)
    assert other == pytest.approx(one, abs=2 / 255)
    assert np.array_equal(measure([brightness_model(16)], uris, views, threads=1)[0], one)


def test_the_plain_view_is_the_file_as_scoring_reads_it(tmp_path):
    generator = np.random.default_rng(3)
    Image.fromarray(generator.integers(0, 256, (70, 50, 3), np.uint8)).save(tmp_path / "noise.jpg", quality=60)
    data = (tmp_path / "noise.jpg").read_bytes()
    found = measure([brightness_model(16)], [str(tmp_path / "noise.jpg")], [View(PLAIN)])[0]
    assert found[0, 0, 1] == pytest.approx(prepare_image(data, 16, 16).pixels.mean() / 255, abs=1e-6)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"broken\.png.*can be decoded"):
        measure([brightness_model()], [str(tmp_path / "broken.png")], [View(PLAIN)])


def two_classes(mask):
    """The output of a model of two classes, from its probability of a mask."""
    mask = np.array(mask, np.float32)
    return np.stack([1 - mask, mask], axis=-1)


def test_a_mask_worn_incorrectly_is_a_mask():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]], np.float32)
    decision = Decision(no_mask_below=0.5, mask_from=0.5, incorrect_from=0.5)
    sample = sample_of(probabilities, np.array([True, True, False]), THREE_CLASSES, decision)
    assert sample.labels.tolist() == [MASK, MASK, NO_MASK]
    assert sample.probabilities.tolist() == pytest.approx([0.9, 0.8, 0.2])


def test_rows_tell_masks_worn_incorrectly_apart():
    truth = np.array([True, True, True, False, False, False])
    probabilities = [  # mask, incorrect, mask missed; incorrect, mask, none
        [[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.2, 0.2, 0.6], [0.1, 0.6, 0.3], [0.7, 0.1, 0.2], [0.0, 0.1, 0.9]]
    ]
    decision = Decision(no_mask_below=0.5, mask_from=0.5, incorrect_from=0.5)
    values = np.array(probabilities, np.float32)
    (row,) = rows_of(values, [View(PLAIN)], truth, THREE_CLASSES, decision, 0.95)
    assert (row.masked_right, row.masked_as_incorrect, row.masked) == (2, 1, 3)
    assert (row.unmasked_right, row.unmasked_as_mask, row.unmasked_as_incorrect) == (1, 2, 1)
    assert row.accuracy.value == 3 / 6


def test_rows_by_hand():
    truth = np.array([True, True, True, True, False, False])
    plain = [0.9, 0.8, 0.7, 0.6, 0.1, 0.2]
    seen = [0.9, 0.8, 0.55, 0.3, 0.55, 0.7]  # uncertain from .5 to .6, so right for neither class
    rows = rows_of(
        two_classes([plain, seen]),
        [View(PLAIN), View("seen")],
        truth,
        TWO_CLASSES,
        Decision(no_mask_below=0.5, mask_from=0.6),
        0.95,
    )
    # 0.6 in single precision lies above 0.6, so it is a mask, as it is for scoring.
    assert [rows[0][1:8], rows[1][1:8]] == [(4, 4, None, 2, 2, 0, None), (2, 4, None, 0, 2, 1, None)]
    assert [row.accuracy.value for row in rows] == pytest.approx([1, 2 / 6])
    assert [row.balanced_accuracy.value for row in rows] == pytest.approx([1, 0.25])
    assert [row.accuracy_change for row in rows] == pytest.approx([0, 100 * (2 / 6 - 1)])
    assert [row.balanced_change for row in rows] == pytest.approx([0, -75])
    sensitivity, specificity = wilson_interval(2, 4, 0.95), wilson_interval(0, 2, 0.95)
    below = np.hypot(0.5 - sensitivity.low, 0 - specificity.low) / 2
    above = np.hypot(sensitivity.high - 0.5, specificity.high - 0) / 2
    assert (rows[1].balanced_accuracy.low, rows[1].balanced_accuracy.high) == pytest.approx(
        (max(0, 0.25 - below), 0.25 + above)
    )
