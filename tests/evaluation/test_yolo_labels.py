"""YOLO's text files: boxes by hand, class names from each place, and files of another kind."""

import numpy as np
import pytest

from maskdet.errors import SourceError
from maskdet.evaluation.yolo_labels import is_label_file, read_class_names, read_yolo

NAMES = "with_mask\nwithout_mask\n"


def written(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return [str(folder / name) for name in texts]


def test_edges_are_those_of_the_box_around_the_centre(tmp_path):
    written(tmp_path, {"classes.txt": NAMES})
    text = "\ufeff0 0.5 0.25 0.25 0.5\r\n\r\n1  0.125 0.75 0.25 0.25 \r\n"
    one, empty = read_yolo(str(tmp_path), written(tmp_path, {"a.txt": text, "b.txt": ""})).values()
    image = one.in_pixels(800, 400)
    np.testing.assert_array_equal(image.boxes, [[300, 0, 500, 200], [0, 250, 200, 350]])
    assert (image.labels, image.ignored.tolist(), image.in_shares) == (("mask", "no_mask"), [False, False], False)
    assert empty.boxes.shape == (0, 4) and empty.in_pixels(8, 8).labels == ()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("labels/train/classes.txt", NAMES),
        ("labels/_darknet.labels", NAMES),
        ("obj.names", NAMES),
        ("data.yaml", "train: images\nnames: [with_mask, without_mask]\nnc: 2\n"),
        ("labels/data.yml", "names:\n  0: with_mask\n  1: without_mask\n"),
    ],
)
def test_names_of_classes_stand_beside_the_labels_or_above(tmp_path, file, text):
    (uri,) = written(tmp_path, {file: text})
    assert read_class_names(f"{tmp_path}/labels/train") == (uri, {0: "with_mask", 1: "without_mask"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names: 3", r"data\.yaml: names: expected a list, or a map from numbers to names, received 3"),
        ("names: {a: b}", "a map from numbers to names"),
        ("[", r"data\.yaml: not YAML"),
        (b"\xff\xfe", r"data\.yaml: expected text in UTF-8"),
    ],
)
def test_bad_names_are_refused(tmp_path, text, said):
    written(tmp_path, {"data.yaml": text})
    with pytest.raises(SourceError, match=said):
        read_class_names(str(tmp_path))


def test_labels_without_names_of_classes_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"expected one of data\.yaml, .*Write the names, .* into .*classes\.txt"):
        read_yolo(str(tmp_path), written(tmp_path, {"a.txt": "0 .5 .5 .1 .1"}))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 .5 .5 .1", "expected class, centre x"),
        ("0 .5 .5 .1 wide", "received '0 .5 .5 .1 wide'"),
        ("0.5 .5 .5 .1 .1", "expected class, centre x"),
        ("0 .1 .1 .2 .1 .2 .2", "Export boxes, not polygons"),
        ("2 .5 .5 .1 .1", r"a class of .*classes\.txt \(0 with_mask, 1 without_mask\), received 2"),
        ("0 120 80 40 40", "Divide pixels by the image's sides"),
        ("0 .5 .5 0 .1", "left < right"),
        ("0 .5 nan .1 .1", "finite"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, said):
    written(tmp_path, {"classes.txt": NAMES})
    with pytest.raises(SourceError, match=said) as caught:
        read_yolo(str(tmp_path), written(tmp_path, {"good.txt": "1 .5 .5 .1 .1", "a.txt": f"0 .5 .5 .1 .1\n{line}\n"}))
    assert "a.txt: line 2" in str(caught.value)


def test_unknown_classes_are_counted_over_all_files(tmp_path):
    written(tmp_path, {"classes.txt": "mask\ndog\ncat\n"})
    files = {"a.txt": "1 .5 .5 .1 .1\n0 .5 .5 .1 .1", "b.txt": "1 .5 .5 .1 .1\n2 .5 .5 .1 .1"}
    with pytest.raises(SourceError, match=r"a\.txt: unknown classes 'dog' \(2 boxes\), 'cat' \(1 box\); known are"):
        read_yolo(str(tmp_path), written(tmp_path, files))


def test_files_that_are_no_labels_are_known(tmp_path):
    names = {"a.txt": True, "A.TXT": True, "test.txt": True, "classes.txt": False, "README.roboflow.txt": False}
    assert {name: is_label_file(f"/in/{name}") for name in names} == names
    texts = {"classes.txt": NAMES, "train.txt": "images/a.jpg\nimages/b.jpg\n", "test.txt": "0 .5 .5 .1 .1"}
    found = read_yolo(str(tmp_path), written(tmp_path, texts)[1:])
    assert [uri.rpartition("/")[2] for uri in found] == ["test.txt"]
