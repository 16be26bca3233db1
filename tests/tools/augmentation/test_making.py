import io

import numpy as np
import pytest
from PIL import Image

from maskdet.errors import SourceError
from maskdet.faces.decoding import no_detections
from maskdet.preparation.manifest import read_split
from tools.augmentation.making import compose, find_portraits
from tools.augmentation.settings import ComposeSettings, Kinds
from tools.augmentation.writing import write_composites

FEW = Kinds(
    drawn_mask=3,
    covered=2,
    swapped_unmasked=2,
    swapped_masked=1,
    bust_unmasked=2,
    bust_masked=1,
    detected_unmasked=4,
    detected_masked=3,
)


@pytest.fixture(scope="module")
def images(head, tmp_path_factory):
    """Two masked and two unmasked heads, a blank image, a broken one."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for index, label in enumerate(["mask", "no_mask", "mask", "no_mask"]):
        picture, _ = head(side_px=120, skin=(200, 150 - 10 * index, 120))
        picture.save(folder / f"{index}.png")
        rows.append((str(folder / f"{index}.png"), label, f"group{index}"))
    Image.new("RGB", (120, 120)).save(folder / "blank.png")
    (folder / "broken.png").write_bytes(b"no image")
    return [*rows, (str(folder / "blank.png"), "mask", "b"), (str(folder / "broken.png"), "mask", "c")]


@pytest.fixture(scope="module")
def portraits(images, detect):
    return find_portraits(images, detect, ComposeSettings())


def test_portraits_are_the_images_with_one_sure_face(portraits, images, detect):
    assert [(portrait.label, portrait.group) for portrait in portraits] == [
        ("mask", "group0"), ("no_mask", "group1"), ("mask", "group2"), ("no_mask", "group3"),
    ]  # fmt: skip
    assert all(portrait.is_scene for portrait in portraits)  # the head takes up .6 of the height
    assert find_portraits(images, detect, ComposeSettings(min_score=0.95)) == []
    tight = find_portraits(images, detect, ComposeSettings(max_scene_face=0.5))
    assert not any(portrait.is_scene for portrait in tight)


def test_every_kind_is_made_as_often_as_asked_with_its_label(portraits, detect):
    made = list(compose(portraits, detect, ComposeSettings(kinds=FEW)))
    counts = {kind: [c.label for c in made if c.kind == kind] for kind in FEW.model_dump()}
    assert counts == {
        "drawn_mask": ["mask"] * 3,
        "covered": ["no_mask"] * 2,
        "swapped_unmasked": ["no_mask"] * 2,
        "swapped_masked": ["mask"],
        "bust_unmasked": ["no_mask"] * 2,
        "bust_masked": ["mask"],
        "detected_unmasked": ["no_mask"] * 4,
        "detected_masked": ["mask"] * 3,
    }
    unmasked, masked = {"group1", "group3"}, {"group0", "group2"}
    for composite in made:
        assert composite.group in (masked if composite.kind.endswith("_masked") else unmasked)
        assert Image.open(io.BytesIO(composite.data)).format == "JPEG"


def test_composites_depend_on_seed_kind_and_number_alone(portraits, detect):
    first = [composite.data for composite in compose(portraits, detect, ComposeSettings(kinds=FEW))]
    more = FEW.model_copy(update={"drawn_mask": 5})
    again = [composite.data for composite in compose(portraits, detect, ComposeSettings(kinds=more))]
    assert again[:3] + again[5:] == first
    other = [composite.data for composite in compose(portraits, detect, ComposeSettings(kinds=FEW, seed=8))]
    assert not set(other) & set(first)


def test_a_kind_that_cannot_be_made_is_a_clear_error(portraits, detect):
    unmasked = [portrait for portrait in portraits if portrait.label == "no_mask"]
    with pytest.raises(SourceError, match=r"images for swapped_masked: .* Set kinds\.swapped_masked=0"):
        list(compose(unmasked, detect, ComposeSettings(kinds=FEW)))


def test_what_is_written_is_a_training_manifest(portraits, detect, tmp_path):
    settings = ComposeSettings(kinds=FEW, output=str(tmp_path / "out"))
    counts = write_composites(compose(portraits, detect, settings), settings)
    assert counts == FEW.model_dump()
    rows = read_split(str(tmp_path / "out" / "images.parquet"), "train", drop_suspicious=True, drop_flat=True)
    assert sorted(label for _, label, _ in rows) == ["mask"] * 8 + ["no_mask"] * 10
    assert {uri for uri, _, _ in rows} == {str(path) for path in (tmp_path / "out").rglob("*.jpg")}
    covered = read_split(str(tmp_path / "out" / "images.parquet"), "train", ["covered"])
    assert [label for _, label, _ in covered] == ["no_mask"] * 2
    for uri, _, _ in rows:
        assert np.asarray(Image.open(uri)).ndim == 3


def test_fewer_the_next_time_leave_nothing_behind(portraits, detect, tmp_path):
    settings = ComposeSettings(kinds=FEW, output=str(tmp_path / "out"))
    write_composites(compose(portraits, detect, settings), settings)
    fewer = settings.model_copy(update={"kinds": FEW.model_copy(update={"covered": 0})})
    write_composites(compose(portraits, detect, fewer), fewer)
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 16
    assert not list((tmp_path / "out" / "no_mask").glob("covered*"))


def test_a_face_that_no_detector_finds_again_is_a_clear_error(portraits):
    def blind(pixels):
        return no_detections()

    one = Kinds(**dict.fromkeys(FEW.model_dump(), 0) | {"detected_masked": 1})
    with pytest.raises(SourceError, match=r"faces for detected_masked: .* Set kinds\.detected_masked=0"):
        list(compose(portraits, blind, ComposeSettings(kinds=one)))
