"""How contestants are defined, and how their outputs are read."""

import ast
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.comparison import Run
from benchmarks.contestants import LABELS, PEERS, Task, command, probabilities, split
from benchmarks.peers.command import worn
from benchmarks.process_tree import Cost
from benchmarks.reporting import Section, render

PEER_FILES = sorted((Path(__file__).parents[2] / "benchmarks" / "peers").glob("*.py"))
TASK = Task(Path("/images"), "models/m", Path("/bundle"), cores=2)


@pytest.mark.parametrize("path", PEER_FILES, ids=lambda path: path.name)
def test_peers_use_nothing_of_maskdet(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not any(name.split(".")[0] in ("maskdet", "pipelines") for name in names)


def test_every_peer_is_a_module_and_is_given_the_same():
    assert set(PEERS) <= {path.stem for path in PEER_FILES}
    for name in PEERS:
        given = command(name, TASK, Path("/out"))
        assert given[1:] == [
            "-m", f"benchmarks.peers.{name}", "--input", "/images", "--model", "/bundle", "--output", "/out",
        ]  # fmt: skip
    assert "builtin" in command("compact", TASK, Path("/out"))
    assert "models/m" in command("maskdet", TASK, Path("/out"))


def test_probabilities_are_read_by_file_name_from_a_file_a_folder_or_tables(tmp_path):
    def write(path, uri, value, rows):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({uri: list(rows), value: list(rows.values())}), path)

    write(tmp_path / "file", "uri", "probability", {"/x/a.jpg": 0.25, "b.png": 0.5})
    write(tmp_path / "folder" / "part-0.parquet", "uri", "probability", {"file:///x/a.jpg": 0.25})
    write(tmp_path / "folder" / "part-1.parquet", "uri", "probability", {"file:///x/b.png": 0.5})
    tables = tmp_path / "tables" / "predictions" / "site=1"
    write(tables / "shard.parquet", "image_uri", "probability_mask", {"/x/a.jpg": 0.25, "/x/b.png": 0.5})
    write(tmp_path / "tables" / "failures" / "f.parquet", "image_uri", "probability_mask", {"/x/c.jpg": 0.75})
    for name in ("file", "folder", "tables"):
        assert probabilities(tmp_path / name) == {"a.jpg": 0.25, "b.png": 0.5}
    assert probabilities(tmp_path / "nothing") == {}


def test_our_time_is_divided_by_the_run_manifest(tmp_path):
    (tmp_path / "_runs").mkdir()
    run = {
        "started_at": "2026-01-01T00:00:02Z",
        "finished_at": "2026-01-01T00:00:10+00:00",
        "thread_seconds": {"fetch": 2.0, "decode": 6.0, "detect": 0.0, "infer": 4.0, "write": 1.0},
    }
    (tmp_path / "_runs" / "one.json").write_text(json.dumps(run))
    begun_at = 1767225600.0 + 1.0  # a second after midnight, 2026-01-01, UTC
    cost = Cost(exit_code=0, wall_s=9.5, cpu_s=0.0, peak_mib=0.0, begun_at=begun_at)
    assert split("maskdet", cost, TASK, tmp_path, "") == pytest.approx(
        {"start": 1.0, "fetch": 1.0, "decode": 3.0, "infer": 2.0, "write": 0.5, "framework": 1.5, "exit": 0.5}
    )
    assert split("bare_loop", cost, TASK, tmp_path, 'noise\n{"loop_s": 7.0, "images": 3}\n') == {
        "start": 2.5, "loop": 7.0,
    }  # fmt: skip
    assert split("beam", cost, TASK, tmp_path, "") == {}


def test_the_page_has_a_section_for_each_data_set():
    runs = tuple(
        Run(name, round_, 0, wall, 1.0, 50.0, load=0.7)
        for round_, walls in ((1, (2.0, 8.0)), (2, (2.5, 5.0)))
        for name, wall in zip(("maskdet", "beam"), walls, strict=True)
    )
    page = render([Section("png", "crops", 1200, runs, 2), Section("wild", "web", 80, runs[:2], 2)])
    assert [line for line in page.splitlines() if line.startswith("## ")] == ["## png", "## wild"]
    assert f"- {LABELS['beam']} / {LABELS['maskdet']}: 3.00 (2.00–4.00)" in page
    assert "1,200 images: crops. 2 rounds" in page
    assert "at most 0.7 on 2 cores" in page


def test_outputs_of_two_and_three_classes_tell_whether_there_is_a_mask():
    assert worn(np.array([0.25, 0.75])).tolist() == worn(np.array([[0.25], [0.75]])).tolist() == [0.25, 0.75]
    assert worn(np.array([[0.5, 0.25, 0.25], [0.0, 0.25, 0.75]])).tolist() == [0.75, 0.25]
