"""Labelled images as a model sees them: by folder, by a list's column, some of each class; and which are left out."""

import numpy as np
import pytest

from maskdet.errors import SourceError
from maskdet.evaluation.labelled_views import labelled_views, unlabelled_views
from maskdet.evaluation.settings import TruthSettings
from maskdet.labels import CODES
from maskdet.model.manifest import InputSpec
from maskdet.testing import solid_image

SPEC = InputSpec(height=10, width=12)
TRUTH = TruthSettings(column="label")
TWO = ("mask", "no_mask")
SHADES = {"WithMask": 40, "WithoutMask": 200, "incorrect_mask": 120}


@pytest.fixture
def folder(tmp_path):
    """Five grey images of each class, in folders named as collections name them; one file is no image."""
    for name, shade in SHADES.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(5):
            (tmp_path / "set" / name / f"{index}.png").write_bytes(solid_image(shade + index))
    (tmp_path / "set" / "WithMask" / "broken.jpg").write_bytes(b"\xff\xd8\xff no image")
    return tmp_path


def by_shade(views):
    return [int(pixels.mean()) for pixels in views.pixels]


def test_folders_tell_the_class(folder):
    views = labelled_views(str(folder / "set"), SPEC, "whole", classes=TWO, most_of_a_class=99, truth=TRUTH)
    assert views.pixels.shape == (10, 10, 12, 3)
    expected = [CODES["mask"] if shade < 100 else CODES["no_mask"] for shade in by_shade(views)]
    assert views.classes.tolist() == expected
    assert (views.failed, views.without_face) == (1, 0)


def test_a_third_class_is_there_for_a_model_that_knows_it(folder):
    three = (*TWO, "incorrect")
    views = labelled_views(str(folder / "set"), SPEC, "whole", classes=three, most_of_a_class=99, truth=TRUTH)
    assert sorted(set(views.classes.tolist())) == sorted(CODES[name] for name in three)


def test_a_list_s_column_tells_the_class(folder):
    rows = [f"set/{name}/{index}.png,{'yes' if name == 'WithMask' else 'no'}" for name in SHADES for index in range(2)]
    (folder / "list.csv").write_text("\n".join(["uri,worn", *rows[:4]]) + "\n")
    truth = TruthSettings(column="worn")
    views = labelled_views(str(folder / "list.csv"), SPEC, "whole", classes=TWO, most_of_a_class=99, truth=truth)
    assert sorted(by_shade(views)) == [40, 41, 200, 201]
    assert views.classes.tolist().count(CODES["mask"]) == 2


def test_so_many_of_each_class_and_the_same_ones_again(folder):
    def view(location):
        return labelled_views(location, SPEC, "whole", classes=TWO, most_of_a_class=3, truth=TRUTH)

    first, again = view(str(folder / "set")), view(str(folder / "set"))
    assert len(first.pixels) + first.failed == 6
    np.testing.assert_array_equal(first.pixels, again.pixels)


def test_one_class_is_not_enough(folder):
    with pytest.raises(SourceError, match="some of each") as caught:
        labelled_views(str(folder / "set" / "WithMask"), SPEC, "whole", classes=TWO, most_of_a_class=9, truth=TRUTH)
    assert caught.value.exit_code == 3


def test_images_without_labels(folder):
    views = unlabelled_views(str(folder / "set"), SPEC, "whole", 7)
    assert len(views.pixels) + views.failed == 7
    assert set(views.classes.tolist()) == {CODES["uncertain"]}
    with pytest.raises(SourceError, match="1 not readable"):
        unlabelled_views(str(folder / "set" / "WithMask" / "broken.jpg"), SPEC, "whole", 7)
