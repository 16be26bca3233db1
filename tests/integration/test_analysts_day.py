"""The analyst's day as the guide describes it: every command, and between them the requests of the page's buttons."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import openpyxl
import pyarrow.parquet as pq
import pytest

from maskdet.demo.faces import write_demo_tree
from tools.documents.pages import blocks

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "explore.md"
MOST_CPU_S = 300


@pytest.fixture
def desk(tmp_path):
    """A folder with the demo's photographs, and an environment in which no browser opens."""
    tree = write_demo_tree(tmp_path / "all", images_per_hour=1)
    for file in tree.files:
        if file.masked is not None:
            target = tmp_path / "photos" / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tmp_path / "all" / file.path, target)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    programs = Path(sys.executable).parent
    path = f"{programs}:{os.environ['PATH']}"
    return tmp_path, {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "BROWSER": "/bin/true",
        "PYTHONUNBUFFERED": "1",
    }


def written_commands():
    [block] = [
        block for block in blocks(GUIDE) if "maskdet explore tables/ --open" in block.text and "score" in block.text
    ]
    return [line.split("#")[0].strip() for line in block.text.strip().splitlines()]


class AtThePage:
    """A person who uses the explorer: the requests that its buttons make."""

    def __init__(self, link):
        self.origin = re.match(r"http://[^/]+", link)[0]
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        self.ask(link.removeprefix(self.origin))

    def ask(self, path, body=None):
        headers = {"Origin": self.origin, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with self._opener.open(urllib.request.Request(self.origin + path, data, headers), timeout=60) as answer:
            return answer.read()


def work_at_the_page(command, folder, environment):
    """Correct one face of a label, export what is left, and end the command as a person would."""
    server = subprocess.Popen(command.split(), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        link = re.search(r"http://\S+", server.stdout.readline())[0]
        page = AtThePage(link)
        found = json.loads(page.ask("/api/faces?label=mask&order=unsure&key.site=demo-south"))
        face = found["faces"][0]
        answer = json.loads(page.ask("/api/relabel", {"id": face["id"], "label": "no_mask"}))
        assert answer["label"] == "no_mask"
        (folder / "faces.xlsx").write_bytes(page.ask("/export/faces.xlsx?key.site=demo-south"))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        server.stdout.close()
    assert server.returncode == 0
    return face


def sheet(path, name):
    rows = list(openpyxl.load_workbook(path)[name].values)
    return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def test_the_day_runs_as_written(desk):
    folder, environment = desk
    before, figures, corrected = os.times(), [], None
    for command in written_commands():
        if "explore" in command:
            corrected = work_at_the_page(command, folder, environment)
        else:
            shell = ["bash", "-euo", "pipefail", "-c", command]
            done = subprocess.run(shell, check=False, cwd=folder, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            if "--excel" in command:
                figures += sheet(folder / "figures.xlsx", "all")
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < MOST_CPU_S
    assert corrected is not None and len(figures) == 2
    first, second = figures
    assert second["faces"] == first["faces"] > 20
    assert second["faces_mask"] == first["faces_mask"] - 1
    assert second["faces_no_mask"] == first["faces_no_mask"] + 1
    exported = {(row["image_uri"], row["face_index"]): row for row in sheet(folder / "faces.xlsx", "faces")}
    [turned] = [row for row in exported.values() if row["is_corrected"]]
    assert (turned["image_uri"], turned["label"], turned["model_label"]) == (corrected["uri"], "no_mask", "mask")
    assert {row["site"] for row in exported.values()} == {"demo-south"}
    [total] = pq.read_table(folder / "tables" / "compliance" / "level=all").to_pylist()
    assert (total["faces_corrected"], total["faces_no_mask"]) == (1, second["faces_no_mask"])
    assert (folder / "south.html").stat().st_size > 10_000 and (folder / "sheet.png").is_file()
