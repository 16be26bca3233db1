"""The built-in model's accuracy on real faces of its training sources, in groups that it was not trained on."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from maskdet.cli import main
from maskdet.cores import available_cores
from maskdet.evaluation import metrics
from maskdet.evaluation.metrics import Tally
from maskdet.model.backends import RuntimeSpec, load_model
from maskdet.preparation.manifest import read_images
from tools.comparison.cases import select
from tools.comparison.robustness import View, first_of_each_class, measure, rows_of, sample_of, views_of
from tools.comparison.settings import RobustnessSettings, Selection

ROOT = Path(__file__).parents[2]
OFFICIAL, DISJOINT = Selection(official_split=("test",)), Selection(split=("test",))
SMALL_PX, LARGE_PX, WIDTHS = (24, 32, 48, 64, 112, 224), (500, 1000), (112, 224)
# A face of 1,000 pixels takes as long to make as 20 small ones.
SMALL_IMAGES, LARGE_IMAGES = 500, 100  # of each class

# The short form measures the first of each class of the official test set, by their SHA-256.
SHORT_IMAGES, SHORT_LARGE_IMAGES = 100, 10

pytestmark = pytest.mark.data
long_form = pytest.mark.thorough  # 4,000 images and 14,000 views of them, and a list of 15,000 files to choose from


@pytest.fixture(scope="module")
def images(data_folder, tmp_path_factory):
    """Images of a source's part: ``images(source, part)`` → rows of the training manifest."""
    output = tmp_path_factory.mktemp("manifest")
    config = ["--config", str(ROOT / "configs" / "prepare.yaml"), "--set", f"root={data_folder}", "--quiet"]
    assert main.main(["prepare", *config, "--output", str(output)]) == 0
    columns = ("image_uri", "label", "content_sha256", "source", "official_split", "split")
    manifest = read_images(str(output / "images.parquet"), columns)
    return lambda source, part: select(manifest, source, part)


@pytest.fixture(scope="module")
def model():
    return load_model("builtin", RuntimeSpec(threads=available_cores()))


def rule_of(model):
    return model.manifest.class_names, model.manifest.decision


def truth_of(table):
    return np.array([label == "mask" for label in table["label"].to_pylist()])


@pytest.fixture(scope="module")
def tallies(images, model):
    """Unchanged files: the official test set, and the group-disjoint test part of each source."""
    found = {}
    for name, source, part in (("official", "k12", OFFICIAL), ("k12", "k12", DISJOINT), ("wild", "wild", DISJOINT)):
        table = images(source, part)
        (probabilities,) = measure([model], table["image_uri"].to_pylist(), [View("plain")])
        found[name] = Tally.of(sample_of(probabilities[0], truth_of(table), *rule_of(model)))
    return found


@pytest.fixture(scope="module")
def views(images, model):
    """Rows of held-out faces of both sources, by view, each with the rows of the unchanged faces."""
    table = pa.concat_tables([images("k12", DISJOINT), images("wild", DISJOINT)])
    return rows_by_view(model, table, SMALL_IMAGES, LARGE_IMAGES)


def rows_by_view(model, table, small_images, large_images):
    found = {}
    for limit, sides, widths in ((small_images, SMALL_PX, WIDTHS), (large_images, LARGE_PX, ())):
        faces = first_faces(table, limit)
        shown = views_of(RobustnessSettings(data=("held_out",), sides_px=sides, widths_px=widths))
        (probabilities,) = measure([model], faces["image_uri"].to_pylist(), shown)
        rows = rows_of(probabilities, shown, truth_of(faces), *rule_of(model), 0.95)
        found |= {row.view: row for row in rows[1:]}
    return found


def first_faces(table, limit):
    """The first of each class by SHA-256."""
    return table.take(
        pa.array(first_of_each_class(table["label"].to_pylist(), table["content_sha256"].to_pylist(), limit))
    )


@pytest.fixture(scope="module")
def official(data_folder):
    """The official test set, labelled by its folders."""
    files = sorted(path for path in (data_folder / "k12" / "Test").rglob("*") if path.is_file())
    return pa.table(
        {
            "image_uri": [str(path) for path in files],
            "label": ["mask" if path.parent.name == "WithMask" else "no_mask" for path in files],
            "content_sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in files],
        }
    )


def test_the_first_images_of_the_official_test_set(official, model):
    faces = first_faces(official, SHORT_IMAGES)
    (probabilities,) = measure([model], faces["image_uri"].to_pylist(), [View("plain")])
    tally = Tally.of(sample_of(probabilities[0], truth_of(faces), *rule_of(model)))
    right, count = metrics.accuracy(tally)
    assert count == 2 * SHORT_IMAGES
    assert right >= 198  # 199 when this was written; int8 kernels of another processor may turn one
    assert float(metrics.calibration_error(tally, metrics.equal_mass_bins(tally))) <= 0.02


def test_views_of_its_first_images(official, model):
    """As below, on fewer images: one of 200 is half a percentage point."""
    rows = rows_by_view(model, official, SHORT_IMAGES, SHORT_LARGE_IMAGES)
    assert len(rows) == 2 * len(SMALL_PX + LARGE_PX) + 2
    assert rows["longer side 32 px"].balanced_change >= -1.5
    assert rows["longer side 32 px, blurred"].balanced_change >= -2.5
    assert not [width for width in WIDTHS if abs(rows[f"every width {width} px"].accuracy_change) > 1.0]
    assert not [row.view for row in rows.values() if row.unmasked_as_mask / row.unmasked > 0.02]


@long_form
def test_the_official_test_set(tallies):
    # The goal is .998: docs/model_trials.md says what is missing.
    assert float(metrics.share(metrics.accuracy(tallies["official"]))) >= 0.993


@long_form
def test_groups_of_k12_that_it_was_not_trained_on(tallies):
    # The goal is .995, which it misses by two images: without incorrect_odds it would meet it.
    assert float(metrics.share(metrics.accuracy(tallies["k12"]))) >= 0.994


@long_form
def test_groups_of_wild_that_it_was_not_trained_on(tallies):
    assert float(metrics.balanced_accuracy(tallies["wild"])) >= 0.98


@long_form
@pytest.mark.parametrize("name", ["official", "k12", "wild"])
def test_its_probabilities_are_honest(tallies, name):
    tally = tallies[name]
    assert float(metrics.calibration_error(tally, metrics.equal_mass_bins(tally))) <= 0.02


@long_form
@pytest.mark.parametrize(("note", "least"), [("", -1.5), (", blurred", -2.0)])
def test_faces_of_32_pixels_lose_little(views, note, least):
    assert views[f"longer side 32 px{note}"].balanced_change >= least


@long_form
@pytest.mark.parametrize("width_px", WIDTHS)
def test_one_width_for_all_changes_next_to_nothing(views, width_px):
    assert abs(views[f"every width {width_px} px"].accuracy_change) <= 0.3


@long_form
@pytest.mark.parametrize("side_px", [*SMALL_PX, *LARGE_PX])
@pytest.mark.parametrize("note", ["", ", blurred"])
def test_unmasked_faces_of_any_size_are_not_called_masked(views, side_px, note):
    row = views[f"longer side {side_px} px{note}"]
    assert row.unmasked_as_mask / row.unmasked <= 0.02
