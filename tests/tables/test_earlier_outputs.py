"""Outputs of an earlier version: their compliance tables have fewer columns, their records fewer settings."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet.cli import main
from maskdet.compliance.corrections import Correction, Corrections
from maskdet.schemas import COMPLIANCE_VERSION
from maskdet.tables.recount import correct_faces
from maskdet.tables.snapshot import table_files
from tests.outputs import face, write_output

NOW = datetime(2026, 5, 1, tzinfo=UTC)
AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
# Of version 2.
COLUMNS = (
    *("images_listed", "images_scored", "images_no_face", "images_failed", "faces", "faces_mask", "faces_incorrect"),
    *("faces_no_mask", "faces_uncertain", "mask_rate", "mask_rate_low", "mask_rate_high", "any_mask_rate"),
    *("any_mask_rate_low", "any_mask_rate_high", "correct_rate", "correct_rate_low", "correct_rate_high"),
    *("rate_method", "interval_method", "interval_confidence"),
)


@pytest.fixture
def earlier(tmp_path):
    images = [(f"/{number}.jpg", ("a", "c1"), AT, [face("mask" if number % 3 else "no_mask")]) for number in range(30)]
    layout = write_output(tmp_path / "tables", images)
    table = pq.read_table(layout.compliance("all")).select(COLUMNS)
    metadata = {"maskdet.table": "compliance", "maskdet.schema_version": "2"}
    pq.write_table(table.replace_schema_metadata(metadata), layout.compliance("all"))
    path = tmp_path / "tables" / "_runs" / "r1.json"
    record = json.loads(path.read_text())
    record["settings"] = {"compliance": {"levels": {}, "confidence": 0.95}, "tables": {}}
    for name in ("recounted", "corrections"):
        record.pop(name)
    path.write_text(json.dumps(record))
    return layout


def test_they_are_shown(earlier, capsys):
    assert main.main(["inspect", earlier.root]) == 0
    out = capsys.readouterr().out
    assert "compliance, level all: 1 groups" in out
    assert "0.667" in out


def test_they_are_compared(earlier, capsys):
    assert main.main(["diff", earlier.root, earlier.root, "--by", "site"]) == 0
    assert "clusters of site x camera x date x hour" in capsys.readouterr().out


def test_counting_them_anew_brings_their_tables_to_this_version(earlier):
    row = pq.ParquetFile(table_files(earlier.root)[0]).read().to_pylist()[0]
    corrections = Corrections.of([Correction(row["image_uri"], row["content_sha256"], 0, "incorrect")])
    run = correct_faces(earlier, corrections, NOW)
    assert run.status == "succeeded"
    table = pq.read_table(earlier.compliance("all"))
    assert table.schema.metadata[b"maskdet.schema_version"] == str(COMPLIANCE_VERSION).encode()
    [row] = table.to_pylist()
    assert (row["faces_incorrect"], row["faces_corrected"]) == (1, 1)
    # The record has no clusters and no error rates of the model, so none are made up.
    assert (row["clusters"], row["any_mask_rate_corrected"], row["recommended"]) == (None, None, "wilson")
    assert "nothing is known" in row["correction_refused"]
    assert pa.types.is_float64(table.schema.field("any_mask_rate_cluster_low").type)
