"""Labels that people gave: every run applies them, whether it scores, recounts or prunes, with the same bytes."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from maskdet.cli import main
from maskdet.compliance.corrections import Correction, Corrections
from maskdet.errors import OutputError
from maskdet.schemas import corrections_schema
from maskdet.tables.corrections import corrections_uri, read_corrections, write_corrections
from maskdet.tables.layout import COMPLIANCE, Layout
from maskdet.tables.recount import correct_faces
from maskdet.tables.runs import read_run

NOW = datetime(2026, 5, 1, tzinfo=UTC)
LENIENT = ("--set", "failure_budget.max_ratio=0.9", "--set", "packing.max_images=5")


@pytest.fixture(scope="module")
def scored(demo, score, tmp_path_factory):
    output = score(tmp_path_factory.mktemp("corrections") / "tables", demo.folder, flags=LENIENT)
    assert output.code == 0
    return output


def corrected(output):
    """The first face of each day, corrected to the other label."""
    rows = output.table("predictions").to_pylist()
    firsts = {row["date"]: row for row in reversed(rows) if row["date"] is not None}
    assert len(firsts) == 2
    turned = {"mask": "no_mask", "no_mask": "mask", "incorrect": "mask", "uncertain": "mask"}
    return Corrections.of(
        Correction(row["image_uri"], row["content_sha256"], row["face_index"], turned[row["label"]])
        for row in firsts.values()
    )


def compliance(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / COMPLIANCE).rglob("*.parquet"))
    }


def test_a_scoring_run_and_a_recount_give_the_same_bytes(scored, demo, score, tmp_path):
    for name in ("again", "recounted"):
        shutil.copytree(scored.folder, tmp_path / name)
    corrections = corrected(scored)
    write_corrections(Layout(str(tmp_path / "again")), corrections)
    again = score(tmp_path / "again", demo.folder, flags=LENIENT)
    run = correct_faces(Layout(str(tmp_path / "recounted")), corrections, NOW)
    assert (again.code, run.status) == (0, "succeeded")
    assert again.run.images_scored_now == 0
    assert (again.run.corrections, run.corrections) == (2, 2)
    assert compliance(tmp_path / "again") == compliance(tmp_path / "recounted") != compliance(scored.folder)
    [row] = pq.read_table(tmp_path / "again" / COMPLIANCE / "level=all" / "groups.parquet").to_pylist()
    [old] = pq.read_table(scored.folder / COMPLIANCE / "level=all" / "groups.parquet").to_pylist()
    assert (row["faces_corrected"], old["faces_corrected"]) == (2, 0)
    assert row["faces"] == old["faces"]
    assert row["any_mask_rate_corrected"] == old["any_mask_rate_corrected"]  # from the model's labels


def test_recounting_with_nothing_new_changes_no_byte(scored, tmp_path):
    shutil.copytree(scored.folder, tmp_path / "tables")
    run = correct_faces(Layout(str(tmp_path / "tables")), Corrections(), NOW)
    assert (run.status, run.corrections) == ("succeeded", 0)
    assert compliance(tmp_path / "tables") == compliance(scored.folder)
    assert (tmp_path / "tables" / "_SUCCESS").is_file()


def test_a_prune_takes_corrections_of_pruned_images_along(scored, tmp_path):
    shutil.copytree(scored.folder, tmp_path / "tables")
    layout = Layout(str(tmp_path / "tables"))
    correct_faces(layout, corrected(scored), NOW)
    assert len(read_corrections(layout)) == 2
    assert main.main(["prune", layout.root, "--before", "2026-03-03"]) == 0
    assert len(read_corrections(layout)) == 1
    [row] = pq.read_table(layout.compliance("all")).to_pylist()
    assert row["faces_corrected"] == 1
    assert read_run(layout).corrections == 1


def test_labels_of_pruned_images_do_not_come_back(scored, tmp_path):
    shutil.copytree(scored.folder, tmp_path / "tables")
    layout, labels = Layout(str(tmp_path / "tables")), corrected(scored)
    assert main.main(["prune", layout.root, "--before", "2026-03-03"]) == 0
    run = correct_faces(layout, labels, NOW)  # as from a sample that was drawn before the images went
    left = set(pq.read_table(layout.folder("predictions"), columns=["image_uri"])["image_uri"].to_pylist())
    assert len(labels.labels.keys() - left) == 1
    assert read_corrections(layout).labels.keys() == labels.labels.keys() & left
    [row] = pq.read_table(layout.compliance("all")).to_pylist()
    assert run.corrections == row["faces_corrected"] == 1


def test_later_corrections_win_and_an_empty_set_leaves_no_file(tmp_path):
    layout = Layout(str(tmp_path))
    first = Corrections.of([Correction("/a", "0", 0, "mask"), Correction("/a", "0", 1, "mask")])
    second = Corrections.of([Correction("/a", "0", 1, "no_mask"), Correction("/b", "1", 0, "not_a_face")])
    write_corrections(layout, first | second)
    assert read_corrections(layout).labels == {
        "/a": {0: ("0", "mask"), 1: ("0", "no_mask")},
        "/b": {0: ("1", "not_a_face")},
    }
    assert pq.read_schema(corrections_uri(layout)).names == corrections_schema().names
    write_corrections(layout, Corrections())
    assert not (tmp_path / "corrections.parquet").exists()
    assert not read_corrections(layout)


@pytest.mark.parametrize("content", [b"no parquet", None])
def test_a_file_that_is_no_table_of_corrections_is_refused(tmp_path, content):
    layout = Layout(str(tmp_path))
    if content is None:
        table = Corrections.of([Correction("/a", "0", 0, "mask")]).to_table()
        pq.write_table(table.set_column(3, "label", [["maks"]]), corrections_uri(layout))
    else:
        (tmp_path / "corrections.parquet").write_bytes(content)
    with pytest.raises(OutputError, match=r"corrections\.parquet"):
        read_corrections(layout)
