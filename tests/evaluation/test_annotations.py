"""Three forms of one annotation, and files that are not annotations."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet.errors import SourceError
from maskdet.evaluation.annotations import IGNORED, read_coco, read_parquet, read_voc, write_parquet

VOC = """<annotation><filename>a.jpg</filename>
<object><name>with_mask</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11.5</xmax><ymax>22</ymax></bndbox></object>
<object><name>face</name><difficult>1</difficult>
<bndbox><xmin>30</xmin><ymin>2</ymin><xmax>40</xmax><ymax>22</ymax></bndbox></object></annotation>"""
BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "yyyy"><!ENTITY z "&x;&x;">]><annotation>&z;</annotation>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "empty.jpg"}],
    "categories": [{"id": 1, "name": "mask"}, {"id": 2, "name": "Face"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 10.5, 20]},
        {"image_id": 7, "category_id": 2, "bbox": [30, 2, 10, 20], "iscrowd": 1},
    ],
}
FIRST = COCO["annotations"][0]


def written(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def check(image):
    assert image.name == "a.jpg"
    np.testing.assert_array_equal(image.boxes, np.array([[1, 2, 11.5, 22], [30, 2, 40, 22]], np.float32))
    assert image.labels == ("mask", None)


def test_voc(tmp_path):
    (image,) = read_voc([written(tmp_path, "a.xml", VOC)])
    check(image)
    assert image.ignored.tolist() == [False, True]


def test_coco_keeps_images_without_faces(tmp_path):
    image, empty = read_coco(written(tmp_path, "a.json", COCO))
    check(image)
    assert image.ignored.tolist() == [False, True]
    assert empty.name == "empty.jpg" and empty.boxes.shape == (0, 4)


def test_parquet_keeps_images_without_faces(tmp_path):
    edges = {
        "left_px": [1, 30, None],
        "top_px": [2, 2, None],
        "right_px": [11.5, 40, None],
        "bottom_px": [22, 22, None],
    }
    columns = {"uri": ["a.jpg", "a.jpg", "empty.jpg"], **edges, "label": ["with_mask", None, None]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    image, empty = read_parquet(str(tmp_path / "a.parquet"))
    check(image)
    assert empty.boxes.shape == (0, 4)


@pytest.mark.parametrize("content", [BOMB, OUTSIDE, "<annotation>", "", "<a/>", "<a>" * 100 + "</a>" * 100,
                                     VOC.replace("11.5", "wide"), VOC.replace("11.5", "0"), VOC.replace("11.5", "nan"),
                                     VOC.replace("with_mask", "dog"), VOC.replace("with_mask", " "),
                                     '<?xml version="1.0" encoding="strange"?>' + VOC])  # fmt: skip
def test_bad_xml_is_refused(tmp_path, content):
    with pytest.raises(SourceError, match=r"a\.xml"):
        read_voc([written(tmp_path, "a.xml", content)])


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, "{}", {**COCO, "categories": []}, {**COCO, "images": []},
                                     {**COCO, "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2]}]},
                                     {**COCO, "annotations": [{**FIRST, "bbox": [1, 2, 0, 4]}]}])  # fmt: skip
def test_bad_json_is_refused(tmp_path, content):
    with pytest.raises(SourceError, match=r"a\.json"):
        read_coco(written(tmp_path, "a.json", content))


def test_bad_parquet_is_refused(tmp_path):
    with pytest.raises(SourceError, match="not Parquet"):
        read_parquet(written(tmp_path, "a.parquet", "text"))
    pq.write_table(pa.table({"uri": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="left_px"):
        read_parquet(str(tmp_path / "b.parquet"))


def test_what_is_marked_or_of_a_class_to_ignore_is_ignored(tmp_path):
    labels = {"With Mask": "mask", "face": None, "mask_weared_incorrect": IGNORED}
    marked = VOC.replace("difficult", "ignore").replace("with_mask", "Mask weared-incorrect")
    (image,) = read_voc([written(tmp_path, "a.xml", marked)], labels)
    assert (image.labels, image.ignored.tolist()) == ((None, None), [True, True])
    content = {**COCO, "annotations": [{**FIRST, "ignore": 1}, FIRST]}
    image, _ = read_coco(written(tmp_path, "a.json", content))
    assert (image.labels, image.ignored.tolist()) == (("mask", "mask"), [True, False])


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    images = read_coco(written(tmp_path, "a.json", COCO))
    write_parquet(str(tmp_path / "a.parquet"), images)
    for one, other in zip(read_parquet(str(tmp_path / "a.parquet")), images, strict=True):
        assert (one.name, one.labels) == (other.name, other.labels)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.ignored, other.ignored)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": [FIRST, {**FIRST, "bbox": [1, 2]}]}, r"annotations\[1\]: bbox: expected four numbers"),
        ({"annotations": [{**FIRST, "image_id": 9}]}, r"annotations\[0\]: image_id: .*received 9"),
        ({"images": [{"id": 7}]}, r"images\[0\]: expected an object with id and file_name"),
        ({"categories": None}, "the lists images, annotations and categories, received 'categories: None'"),
    ],
)
def test_an_error_names_the_entry(tmp_path, change, said):
    with pytest.raises(SourceError, match=said):
        read_coco(written(tmp_path, "a.json", {**COCO, **change}))


def test_unknown_classes_are_listed_with_their_counts_and_what_maps_them(tmp_path):
    uris = [written(tmp_path, f"{number}.xml", VOC.replace("with_mask", "dog")) for number in range(3)]
    uris.append(written(tmp_path, "c.xml", VOC.replace("with_mask", "cat")))
    with pytest.raises(SourceError) as caught:
        read_voc(uris, {"mask": "mask", "face": None, "blurred": IGNORED})
    text = str(caught.value)
    assert "0.xml: unknown classes 'dog' (3 boxes), 'cat' (1 box); known are mask, face, blurred." in text
    assert "truth.mask" in text and "--set 'truth.ignore=[blurred, cat, dog]'" in text
