"""The examples run, on the demo's images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas
import pyarrow.parquet as pq
import pytest

from maskdet.cli.main import main
from maskdet.demo.faces import DEMO_TEMPLATE, write_demo_tree

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of two sites, some of them broken, and the tables of them."""
    folder = tmp_path_factory.mktemp("examples")
    write_demo_tree(folder / "photos", images_per_hour=2)
    levels = "{site: [site], site_day: [site, date], site_week: [site, week], hours: [weekday, hour]}"
    settings = [f"compliance.levels={levels}", "failure_budget.max_ratio=0.5"]
    flags = [word for setting in settings for word in ("--set", setting)]
    paths = ["--input", f"{folder}/photos", "--output", f"{folder}/tables"]
    assert main(["score", *paths, "--faces", "whole", "--template", DEMO_TEMPLATE, *flags, "--quiet"]) == 0
    return folder


def run(name, *arguments, folder):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=120
    )


def test_every_example_is_tested_and_listed():
    names = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    tested, listed = Path(__file__).read_text("utf-8"), (EXAMPLES / "README.md").read_text("utf-8")
    assert not {name for name in names if name not in tested or f"]({name})" not in listed}


def test_sites_are_compared(folder):
    done = run("compare_sites.py", "tables/", folder=folder)
    assert done.returncode == 0, done.stderr
    table = pq.ParquetFile(folder / "tables" / "compliance" / "level=site" / "groups.parquet").read()
    rows = [row for row in table.to_pylist() if row["mask_rate"] is not None]
    lowest = min(rows, key=lambda row: row["mask_rate"])
    assert len(done.stdout.splitlines()) == table.num_rows
    assert done.stdout.startswith(f"{lowest['site']}: {lowest['mask_rate']:.1%} masked")


def test_the_usual_questions_have_answers(folder, monkeypatch):
    monkeypatch.chdir(folder)
    text = (EXAMPLES / "questions.sql").read_text("utf-8")
    statements = [part for part in text.split(";") if "SELECT" in part]
    coverage, rates, weeks, hours, clusters, unsure, failures = (
        duckdb.sql(statement).df().to_dict("records") for statement in statements
    )
    table = pq.ParquetFile(folder / "tables" / "compliance" / "level=site" / "groups.parquet").read().to_pylist()
    whole = {row["site"]: row for row in table}
    assert sum(row["images_listed"] for row in coverage) == sum(row["images_listed"] for row in table)
    for row in rates:
        known = whole[None if pandas.isna(row["site"]) else row["site"]]
        if known["any_mask_rate"] is None or known["recommended"] is None:
            assert pandas.isna(row["low"])
            continue
        end = "any_mask_rate" if known["recommended"] == "wilson" else f"any_mask_rate_{known['recommended']}"
        assert (row["low"], row["high"]) == (known[f"{end}_low"], known[f"{end}_high"])
        assert row["if_none"] <= row["any_mask_rate"] <= row["if_all"]
    assert {row["week"] for row in weeks if not pandas.isna(row["week"])} == {"2026-W10"}
    assert hours == [] or all(row["faces"] >= 30 for row in hours)
    assert {row["clusters"] for row in clusters} == {row["clusters"] for row in table}
    doubts = [abs(row["probability_worn"] - 0.5) for row in unsure]
    assert doubts == sorted(doubts)
    frame = pandas.read_parquet(folder / "tables" / "failures").groupby("code").size()
    assert {row["code"]: row["images"] for row in failures} == frame.to_dict()


def test_the_last_run_is_checked(folder):
    done = run("check_last_run.py", "tables", folder=folder)
    failures = pandas.read_parquet(folder / "tables" / "failures").groupby("code").size()
    assert done.returncode == 1
    assert set(done.stdout.splitlines()) == {f"{count} images failed: {code}" for code, count in failures.items()}
    (folder / "empty").mkdir()
    assert run("check_last_run.py", "empty", folder=folder).stdout == "no run has begun yet\n"


def test_the_notebook_runs(folder):
    cells = json.loads((EXAMPLES / "first_look.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], cwd=folder, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_folders_are_scored_one_by_one(folder):
    """Each folder has an output of its own; one with too many failed images does not stop the others."""
    done = run("score_in_parts.py", "photos", "parts", folder=folder)
    assert done.returncode == 6
    assert "failure budget" in done.stderr or "failed" in done.stderr
    assert "demo-south: " in done.stdout
    assert (folder / "parts" / "demo-south" / "_SUCCESS").is_file()
    assert not (folder / "parts" / "demo-north" / "_SUCCESS").exists()
