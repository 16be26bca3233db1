"""Which image an annotation belongs to, however its name is spelt, and which files are read."""

import numpy as np
import pytest

from maskdet.errors import SourceError
from maskdet.evaluation.annotation_matching import Annotation, locate, read_annotations
from maskdet.evaluation.annotations import AnnotatedImage
from maskdet.evaluation.settings import TruthSettings

VOC = "<annotation><filename>{}</filename><object><name>{}</name>{}</object></annotation>"
BOX = "<bndbox><xmin>0</xmin><ymin>0</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


def annotation(name, file, alone=False):
    return Annotation(file, AnnotatedImage(name, np.empty((0, 4), np.float32), (), np.empty(0, bool)), alone)


def located(given, uris):
    """URI → the annotation's file and name."""
    found = locate(given, uris)
    files = {id(one.image): (one.file, one.image.name) for one in given}
    return {uri: files[id(image)] for uri, image in found.truths.items()}, found


def test_a_name_is_that_beside_its_file_or_the_whole_uri_or_the_end_of_one():
    uris = ["/in/x/a.jpg", "/in/y/a.jpg", "/in/y/b.jpg", "gs://k/c.jpg"]
    names = [("a.jpg", "/in/x"), ("y/a.jpg", "/z"), ("./b.jpg", "/z"), ("gs://k/c.jpg", "/z"), ("y", "/z")]
    truths, found = located([annotation(name, f"{folder}/a.json") for name, folder in names], uris)
    assert {uri: name for uri, (_, name) in truths.items()} == {
        "/in/x/a.jpg": "a.jpg",
        "/in/y/a.jpg": "y/a.jpg",
        "/in/y/b.jpg": "./b.jpg",
        "gs://k/c.jpg": "gs://k/c.jpg",
    }
    assert (found.unlisted, found.by_file) == (["y"], [])


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("A.JPG", "/in/a.jpg"),
        ("my%20photo.jpg", "/in/my photo.jpg"),
        ("my photo.jpg", "/in/my%20photo.jpg"),
        ("a.png", "/in/a.jpg"),
        ("a", "/in/a.jpg"),
        ("C:\\Users\\me\\a.jpg", "/in/a.jpg"),
        ("/home/me/images/a.jpg", "/in/a.jpg"),
        ("photo.of.b.jpeg", "/in/Photo.of.b.png"),
    ],
)
def test_names_are_compared_ever_more_loosely(name, uri):
    truths, found = located([annotation(name, "/z/all.json")], [uri, "/in/other.jpg"])
    assert list(truths) == [uri] and found.unlisted == []


def test_a_strict_match_goes_before_a_loose_one():
    given = [annotation(name, "/z/all.json") for name in ("a.png", "a.jpg")]
    truths, found = located(given, ["/in/a.jpg"])
    assert truths == {"/in/a.jpg": ("/z/all.json", "a.jpg")} and found.unlisted == ["a.png"]


def test_folders_are_dropped_only_where_no_name_s_folders_are_right():
    names = [annotation(name, "/z/all.json") for name in ("train/1.jpg", "val/2.jpg")]
    assert located(names, ["/in/val/1.jpg", "/in/val/2.jpg"])[1].unlisted == ["train/1.jpg"]
    assert sorted(located(names, ["/in/1.jpg", "/in/2.jpg"])[0]) == ["/in/1.jpg", "/in/2.jpg"]


@pytest.mark.parametrize(
    ("names", "said"), [(["a.jpg"], "one image of that name"), (["x/a.jpg", "in/x/a.jpg"], "one annotation an image")]
)
def test_names_that_are_not_clear_are_refused(names, said):
    with pytest.raises(SourceError, match=said):
        locate([annotation(name, "/z/a.json") for name in names], ["/in/x/a.jpg", "/in/y/a.jpg"])


def test_a_stale_name_gives_way_to_that_of_the_file():
    given = [annotation("IMG_7.jpg", "/in/labels/a.xml", alone=True), annotation("b.jpg", "/in/labels/b.xml", True)]
    truths, found = located(given, ["/in/images/a.jpeg", "/in/images/b.jpg"])
    assert truths == {
        "/in/images/a.jpeg": ("/in/labels/a.xml", "IMG_7.jpg"),
        "/in/images/b.jpg": ("/in/labels/b.xml", "b.jpg"),
    }
    assert found.by_file == ["/in/labels/a.xml"]


def test_files_renamed_in_a_row_keep_their_own_images():
    """Where images and files are renamed from n to n + 1, each file's text names the image of the file before it."""
    given = [annotation(f"{number - 1}.jpg", f"/in/{number}.xml", alone=True) for number in (1, 2, 3)]
    truths, found = located(given, [f"/in/{number}.jpg" for number in (1, 2, 3)])
    assert {uri: file for uri, (file, _) in truths.items()} == {f"/in/{n}.jpg": f"/in/{n}.xml" for n in (1, 2, 3)}
    assert len(found.by_file) == 3


def test_a_file_of_another_name_is_believed_about_its_image():
    given = [annotation("a.jpg", "/z/annotation 1.xml", alone=True)]
    assert list(located(given, ["/in/a.jpg"])[0]) == ["/in/a.jpg"]


def test_files_of_one_name_are_told_apart_by_their_folders():
    uris = ["/d/train/images/1.jpg", "/d/val/images/1.jpg", "/e/images/train/1.jpg"]
    files = ["/d/train/labels/1.txt", "/d/val/labels/1.txt", "/e/labels/train/1.txt"]
    truths, _ = located([annotation("", file, alone=True) for file in files], uris)
    assert {uri: file for uri, (file, _) in truths.items()} == dict(zip(uris, files, strict=True))


def test_files_that_no_folder_tells_apart_are_of_no_image():
    given = [annotation("", "/z/1.txt", alone=True)]
    assert locate(given, ["/in/x/1.jpg", "/in/y/1.jpg"]).unlisted == ["1.txt"]


def test_two_files_of_one_image_are_named():
    given = [annotation("", f"/z/{folder}/1.txt", alone=True) for folder in ("p", "q")]
    with pytest.raises(SourceError, match=r"two of /in/1\.jpg, in /z/p/1\.txt and /z/q/1\.txt"):
        locate(given, ["/in/1.jpg"])


def test_a_folder_of_voc_files_is_read_with_the_settings_names(tmp_path):
    for name, label in (("a", "Ja"), ("sub/b", "strange"), ("c", "head")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.xml").write_text(VOC.format(f"{name[-1]}.jpg", label, BOX))
    (tmp_path / "a.jpg").write_bytes(b"no annotation")
    (tmp_path / "a.txt").write_text("nor this, where there is XML")
    found = read_annotations(TruthSettings(boxes=str(tmp_path), mask=("ja",), ignore=("Strange",)))
    assert [(one.file, one.image.name, one.image.labels, one.image.ignored.tolist()) for one in found] == [
        (f"{tmp_path}/a.xml", "a.jpg", ("mask",), [False]),
        (f"{tmp_path}/c.xml", "c.jpg", (None,), [False]),
        (f"{tmp_path}/sub/b.xml", "b.jpg", (None,), [True]),
    ]
    with pytest.raises(SourceError, match=r"sub/b\.xml: unknown classes 'strange' \(1 box\)"):
        read_annotations(TruthSettings(boxes=str(tmp_path), mask=("ja",)))


def test_a_folder_of_yolo_labels_is_read(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("with_mask\nwithout_mask\n")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    for boxes in (tmp_path / "labels", tmp_path, tmp_path / "labels" / "a.txt"):
        (one,) = read_annotations(TruthSettings(boxes=str(boxes)))
        assert (one.file, one.alone, one.image.labels) == (f"{tmp_path}/labels/a.txt", True, ("no_mask",))


def test_a_folder_without_annotations_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"truth\.boxes: expected a COCO file"):
        read_annotations(TruthSettings(boxes=str(tmp_path)))
