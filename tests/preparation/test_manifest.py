import pytest

from maskdet.errors import SourceError
from maskdet.preparation.manifest import read_split


@pytest.fixture
def manifest(tmp_path, prepare, source, planted):
    folder = tmp_path / "manifest"
    other = {"input": str(planted / "Train" / "neither"), "label": "mask"}
    assert (
        prepare(
            folder,
            {
                "faces": source(input=[str(planted / "Train"), str(planted / "Test")], splits={}, split="test"),
                "other": other,
            },
        )
        == 0
    )
    return str(folder / "images.parquet")


def test_splits_are_disjoint_in_groups_and_hold_every_image(manifest):
    splits = {name: read_split(manifest, name) for name in ("train", "validation", "test")}
    groups = [{group for _, _, group in rows} for rows in splits.values()]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    uris = [uri for rows in splits.values() for uri, _, _ in rows]
    assert len(set(uris)) == len(uris) == 30
    assert {label for rows in splits.values() for _, label, _ in rows} == {"mask", "no_mask"}


def test_sources_and_official_splits_can_be_chosen(manifest):
    assert len(read_split(manifest, "test", official=True)) == 29
    assert len(read_split(manifest, "test", ["faces"], official=True, drop_suspicious=True)) == 25


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nowhere",), "one of ['train', 'validation', 'test']"),
        (("train", ["face"]), "sources among ['faces', 'other']"),
        (("validation", ["other"]), "images of split 'validation'"),
    ],
)
def test_what_is_not_there_is_refused(manifest, arguments, part):
    with pytest.raises(SourceError) as error:
        read_split(manifest, *arguments)
    assert part in str(error.value)


def test_an_unfinished_manifest_is_refused(manifest, tmp_path):
    (tmp_path / "manifest" / "_SUCCESS").unlink()
    with pytest.raises(SourceError, match="finished preparation"):
        read_split(manifest, "train")
