"""`privacy.min_cell` of a run: small groups are hidden in the tables, and the run still accounts for every image."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow.parquet as pq

from maskdet.cli import main
from maskdet.compliance.corrections import Corrections
from maskdet.tables.layout import COMPLIANCE, Layout
from maskdet.tables.recount import correct_faces

FLAGS = ("--set", "failure_budget.max_ratio=0.9", "--set", "packing.max_images=7")


def tables(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / COMPLIANCE).rglob("*.parquet"))
    }


def test_small_groups_are_hidden_in_the_tables(demo, score, tmp_path, capsys):
    plain = score(tmp_path / "plain", demo.folder, flags=FLAGS)
    output = score(tmp_path / "tables", demo.folder, flags=(*FLAGS, "--set", "privacy.min_cell=4"))
    assert (plain.code, output.code) == (0, 0)
    assert output.run.faces == plain.run.faces
    open_rows, rows = (
        pq.read_table(folder / COMPLIANCE / "level=site_hour" / "groups.parquet").to_pylist()
        for folder in (plain.folder, output.folder)
    )
    assert len(open_rows) == len(rows)
    small = 0
    for told, row in zip(open_rows, rows, strict=True):
        counts = [told[f"faces_{name}"] or 0 for name in ("mask", "incorrect", "no_mask", "uncertain")]
        if any(0 < count < 4 for count in [*counts, told["images_scored"], told["images_no_face"]]):
            small += 1
            assert row["hidden"]
        if row["hidden"]:
            assert row["faces"] is row["any_mask_rate"] is row["images_listed"] is None
        else:
            assert row["faces_mask"] == told["faces_mask"]
    assert small > 0
    before = tables(output.folder)
    correct_faces(Layout(str(output.folder)), Corrections(), datetime(2026, 5, 1, tzinfo=UTC))
    assert tables(output.folder) == before
    capsys.readouterr()
    assert main.main(["inspect", str(output.folder)]) == 0
    assert "—" in capsys.readouterr().out
