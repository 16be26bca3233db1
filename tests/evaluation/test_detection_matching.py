"""Annotated faces joined with hand-written tables of a run, up to the files: every number counted by hand."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet.config import load_yaml
from maskdet.errors import ConfigError, SourceError
from maskdet.evaluation.annotation_matching import Annotation, read_annotations
from maskdet.evaluation.annotations import AnnotatedImage
from maskdet.evaluation.detection_matching import join_annotations
from maskdet.evaluation.results import evaluate, write_results
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.evaluation.truth import RunTables
from maskdet.labels import THREE_CLASSES, TWO_CLASSES
from maskdet.report.evaluation_page import describe, render
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema
from maskdet.tables.runs import RunRecord

RUN = RunRecord(
    run_id="r",
    started_at=datetime(2026, 1, 5, tzinfo=UTC),
    settings={},
    model={
        "id": "model@1",
        "fingerprint": "1",
        "runtime": "none",
        "decision": {"no_mask_below": 0.5, "mask_from": 0.5},
        "view": "detect",
    },
    fingerprint="f",
    versions={},
)


def settings_of(*overrides):
    return load_yaml(
        EvaluateSettings,
        None,
        ["faces.mode=detect", "truth.boxes=a.json", "intervals.resamples=100", "input=[in]", *overrides],
    )


def annotation(name, *faces, folder="/in"):
    """Faces are left, top, right, bottom, label and perhaps True for those to be ignored."""
    boxes = np.array([face[:4] for face in faces], np.float32).reshape(-1, 4)
    ignored = np.array([len(face) > 5 for face in faces], bool)
    return Annotation(f"{folder}/a.json", AnnotatedImage(name, boxes, tuple(face[4] for face in faces), ignored))


def image(uri):
    return {"image_uri": uri, "content_sha256": f"digest of {uri}", "width_px": 400, "height_px": 300}


def face(uri, index, box, score, probability):
    left, top, right, bottom = box
    edges = {"face_left_px": left, "face_top_px": top, "face_width_px": right - left, "face_height_px": bottom - top}
    label = "mask" if probability >= 0.5 else "no_mask"
    said = {"probability_mask": probability, "probability_no_mask": 1 - probability, "label": label}
    return {**image(uri), "face_index": index, "face_score": score, **edges, **said, "model_id": "model@1"}


# a: two of three faces found, one of them at an overlap of .4 and labelled wrong; a detection of nothing; one of a face
# to be ignored; a small face. b: found by nothing. c: not annotated, one detection. d: faceless and silent.
# e: failed. f: no such image.
PREDICTIONS = [
    face("/in/a.jpg", 0, (0, 0, 100, 100), 0.9, 0.9),
    face("/in/a.jpg", 1, (200, 0, 240, 16), 0.8, 0.7),
    face("/in/a.jpg", 2, (300, 200, 340, 240), 0.7, 0.2),
    face("/in/a.jpg", 3, (120, 120, 160, 160), 0.6, 0.2),
    face("/in/c.jpg", 0, (10, 10, 60, 60), 0.95, 0.1),
]
FAILED = {"image_uri": "/in/e.jpg", "stage": "decode", "code": "corrupt_image", "message": "", "attempts": 1}
TABLES = RunTables(
    pa.Table.from_pylist(PREDICTIONS, predictions_schema()).replace_schema_metadata(None),
    pa.Table.from_pylist([FAILED], failures_schema()),
    pa.Table.from_pylist([image("/in/b.jpg"), image("/in/d.jpg")], no_face_schema()),
)
ANNOTATIONS = [
    annotation(
        "a.jpg",
        (0, 0, 100, 90, "mask"),
        (200, 0, 240, 40, "no_mask"),
        (0, 200, 20, 220, "mask"),
        (100, 100, 200, 200, None, True),
        (380, 0, 390, 10, "mask"),
    ),
    annotation("b.jpg", (0, 0, 50, 50, "no_mask")),
    annotation("d.jpg"),
    annotation("e.jpg", (0, 0, 50, 50, "mask"), (60, 0, 90, 50, None)),
    annotation("f.jpg", (0, 0, 50, 50, "mask")),
]


def evaluated(*overrides):
    settings = settings_of(*overrides)
    annotated = join_annotations(ANNOTATIONS, TABLES, settings, "model@1")
    return evaluate(annotated.labelled(), RUN, settings, annotated), settings


def test_every_image_and_face_is_counted():
    evaluation, _ = evaluated()
    assert evaluation.faces.counts == {
        "images": 3,
        "images_unannotated": 1,
        "images_failed": 1,
        "annotations_unlisted": 1,
        "annotations_by_file": 0,
        "faces": 4,
        "faces_too_small": 1,
        "faces_ignored": 1,
        "faces_failed": 2,
    }
    assert evaluation.faces.examples == {
        **{"annotations_unlisted": ("f.jpg",), "images_unannotated": ("/in/c.jpg",)},
        "annotations_by_file": (),
    }
    assert evaluation.labelled.counts == {
        **{"mask": 1, "incorrect": 0, "no_mask": 1, "truth_unknown": 0},
        **{"failed_mask": 1, "failed_incorrect": 0, "failed_no_mask": 0, "failed_truth_unknown": 1},
    }


def test_figures_are_those_counted_by_hand():
    evaluation, _ = evaluated()
    values = {one.metric: (one.value, one.count) for one in evaluation.faces.estimates}
    assert values == {
        "found_16_to_32_px": (0, 1),
        "found_32_to_64_px": (0.5, 2),
        "found_from_64_px": (1, 1),
        "found_from_32_px": (pytest.approx(2 / 3), 3),
        "found": (0.5, 4),
        "unmatched_per_image": (pytest.approx(1 / 3), 3),
        "recall_16_to_32_px": (0, 1),
        "recall_32_to_64_px": (0, 2),
        "recall_from_64_px": (1, 1),
        "recall_from_32_px": (pytest.approx(1 / 3), 3),
        "recall": (0.25, 4),
        "false_positives_per_image": (pytest.approx(2 / 3), 3),
        "average_precision": (0.25, 4),  # the surest detection is the one face found at IoU .5
        **{f"precision_at_recall_{level}": (None, 4) for level in (0.5, 0.7, 0.8, 0.9, 0.95)},
        "end_to_end_16_to_32_px": (0, 1),
        "end_to_end_32_to_64_px": (0, 2),
        "end_to_end_from_64_px": (1, 1),
        "end_to_end_from_32_px": (pytest.approx(1 / 3), 3),
        "end_to_end": (0.25, 4),
        "end_to_end_mask": (0.5, 2),
        "end_to_end_incorrect": (None, 0),
        "end_to_end_no_mask": (0, 2),
        "balanced_accuracy_found": (0.5, 2),
    }
    for one in evaluation.faces.estimates:
        assert one.value is None or one.low <= one.value <= one.high
    scores, recall, precision = evaluation.faces.curve
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.7])
    np.testing.assert_allclose(recall, [0.25, 0.25, 0.25])
    np.testing.assert_allclose(precision, [1, 1 / 2, 1 / 3])


def test_images_without_annotation_may_count_as_faceless():
    evaluation, _ = evaluated("truth.unannotated=faceless")
    values = {one.metric: one.value for one in evaluation.faces.estimates}
    assert (values["unmatched_per_image"], values["false_positives_per_image"]) == (0.5, 0.75)
    # The surest detection is now a false one: precision is 1/2 at recall 1/4.
    assert values["average_precision"] == pytest.approx(0.25 / 2)
    assert evaluation.faces.counts["images"] == 4


def test_faces_below_the_run_s_least_size_are_not_asked_for():
    evaluation, _ = evaluated("faces.min_face_px=45")
    assert (evaluation.faces.counts["faces"], evaluation.faces.counts["faces_too_small"]) == (2, 3)
    values = {one.metric: one.value for one in evaluation.faces.estimates}
    assert values["found_16_to_32_px"] is values["recall_16_to_32_px"] is None
    assert values["found"] == values["recall"] == 0.5
    assert values["unmatched_per_image"] == values["false_positives_per_image"] == pytest.approx(1 / 3)


def test_mistakes_have_their_kind_and_box():
    evaluation, _ = evaluated()
    rows = [
        (row["kind"], row["image_uri"], row["truth"], row["label"], row["face_left_px"], row["face_width_px"])
        for row in evaluation.mistakes.to_pylist()
    ]
    assert rows == [
        ("wrong_label", "/in/a.jpg", "no_mask", "mask", 200, 40),
        ("missed", "/in/b.jpg", "no_mask", None, 0, 50),
        ("missed", "/in/a.jpg", "mask", None, 0, 20),
        ("false_positive", "/in/a.jpg", None, "no_mask", 300, 40),
    ]


def test_files_page_and_summary_say_the_same(tmp_path):
    evaluation, settings = evaluated()
    page = render(evaluation, settings)
    write_results(str(tmp_path), evaluation, settings, page, "report.html")
    section = json.loads((tmp_path / "metrics.json").read_text())["detection"]
    table = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    for row in table:
        if row["slice"] == "detection":
            assert {key: row[key] for key in section["metrics"][row["metric"]]} == section["metrics"][row["metric"]]
    assert sum(row["slice"] == "detection" for row in table) == len(section["metrics"]) == 27
    assert section["counts"]["faces"] == 4
    assert section["precision_recall"][0] == {"score": pytest.approx(0.9), "recall": 0.25, "precision": 1.0}
    assert len(section["precision_recall"]) == 3 and "Precision against recall at IoU .5" in page
    assert pq.read_table(tmp_path / "mistakes.parquet").num_rows == 4
    assert "Faces found" in page and "1 annotations of images that the run did not list, for example f.jpg" in page
    assert "200, 0: 40 × 16" in page and "1 masked and 1 unmasked found faces evaluated" in page
    text = describe(evaluation, "out")
    assert "4 annotated faces in 3 images; not asked for: 1 below" in text
    assert "images without annotation (see truth.unannotated), for example /in/c.jpg" in text
    assert any(line.split()[:2] == ["end_to_end", "0.2500"] for line in text.splitlines())


def test_faces_without_a_class_are_found_all_the_same():
    settings = settings_of()
    annotated = join_annotations([annotation("a.jpg", (0, 0, 100, 100, None))], TABLES, settings, "m")
    evaluation = evaluate(annotated.labelled(), RUN, settings, annotated)
    values = {one.metric: one.value for one in evaluation.faces.estimates}
    assert (values["recall"], values["end_to_end"], values["balanced_accuracy_found"]) == (1, None, None)
    assert evaluation.labelled.counts["truth_unknown"] == 1 and evaluation.labelled.unknown == ("/in/a.jpg",)
    assert "Faces found" in render(evaluation, settings)


def test_faceless_images_alone_tell_false_positives():
    settings = settings_of()
    annotated = join_annotations([annotation("d.jpg")], TABLES, settings, "m")
    values = {one.metric: one for one in evaluate(annotated.labelled(), RUN, settings, annotated).faces.estimates}
    assert values["recall"].value is values["average_precision"].value is None
    assert values["false_positives_per_image"].value == 0 < values["false_positives_per_image"].high


def test_annotations_of_other_images_alone_are_refused():
    with pytest.raises(SourceError, match=r"a\.json: expected annotations of the images of --input"):
        join_annotations([annotation("other.jpg")], TABLES, settings_of(), "m")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("faces.mode=whole", r"expected faces\.mode detect"),
        ("faces.if_none=whole", r"received detect and whole"),
        ("baselines=true", "baselines: expected false"),
        ("truth.column=x", "boxes and column"),
        ("truth.ignore=[With Mask]", "ignore: expected none of the names"),
    ],
)
def test_settings_that_contradict_are_refused(override, said):
    with pytest.raises(ConfigError, match=said):
        settings_of(override)


VOC = """<annotation><filename>a.jpg</filename>
<object><name>with_mask</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>100</xmax><ymax>100</ymax></bndbox></object>
<object><name>mask_weared_incorrect</name>
<bndbox><xmin>200</xmin><ymin>0</ymin><xmax>240</xmax><ymax>40</ymax></bndbox></object>
<object><name>without_mask</name><bndbox><xmin>300</xmin><ymin>200</ymin><xmax>340</xmax><ymax>240</ymax></bndbox></object>
</annotation>"""


def three_class_face(index, box, mask, incorrect, label):
    row = face("/in/a.jpg", index, box, 0.9 - index / 10, mask)
    rest = {"probability_incorrect": incorrect, "probability_no_mask": 1 - mask - incorrect, "label": label}
    return {**row, **rest}


@pytest.mark.parametrize("knows", [True, False])
def test_masks_worn_incorrectly_are_annotated_found_and_labelled(tmp_path, knows):
    (tmp_path / "a.xml").write_text(VOC)
    settings = settings_of(f"truth.boxes={tmp_path}")
    boxes = [(0, 0, 100, 100), (200, 0, 240, 40), (300, 200, 340, 240)]
    if knows:
        said = [(0.8, 0.1, "mask"), (0.2, 0.7, "incorrect"), (0.1, 0.6, "incorrect")]
        rows = [three_class_face(i, box, *one) for i, (box, one) in enumerate(zip(boxes, said, strict=True))]
    else:
        rows = [
            face("/in/a.jpg", i, box, 0.9, mask)
            for i, (box, mask) in enumerate(zip(boxes, [0.8, 0.9, 0.6], strict=True))
        ]
    table = pa.Table.from_pylist(rows, predictions_schema()).replace_schema_metadata(None)
    tables = TABLES._replace(predictions=table)
    run = RUN.model_copy(update={"model": {**RUN.model, "classes": list(THREE_CLASSES if knows else TWO_CLASSES)}})
    annotated = join_annotations(read_annotations(settings.truth), tables, settings, "model@1")
    evaluation = evaluate(annotated.labelled(), run, settings, annotated)
    assert evaluation.labelled.counts["incorrect"] == 1
    values = {one.metric: (one.value, one.count) for one in evaluation.faces.estimates}
    assert values["found"] == (1, 3)  # faces, whether or not the model has their class
    of_class = {name: values[f"end_to_end_{name}"] for name in THREE_CLASSES}
    if knows:
        assert of_class == {"mask": (1, 1), "incorrect": (1, 1), "no_mask": (0, 1)}
        assert values["end_to_end"] == (pytest.approx(2 / 3), 3)
    else:
        assert of_class == {"mask": (1, 1), "incorrect": (None, 0), "no_mask": (0, 1)}
        assert values["end_to_end"] == (0.5, 2)
    confusion = evaluation.classes.confusion
    assert confusion["incorrect"] == {"mask": 0 if knows else 1, "incorrect": int(knows), "no_mask": 0, "uncertain": 0}
    # Of two classes the bare face is called masked either way: p(mask) + p(incorrect) is .7, or .6.
    assert evaluation.overall["specificity"].value == 0
    assert evaluation.overall["accuracy"].count == 2
