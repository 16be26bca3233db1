"""Prometheus metrics agree with the run's record."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from maskdet.cli import main
from maskdet.errors import StorageError, UnfinishedError
from maskdet.tables import lease
from maskdet.tables.layout import Layout
from maskdet.tables.lease import Holder
from maskdet.tables.metrics import run_metrics
from maskdet.tables.status import read_status
from maskdet.tables.videos import VideoCounts


@pytest.fixture(scope="module")
def finished(demo, score, tmp_path_factory):
    """A run that succeeded."""
    output = score(
        tmp_path_factory.mktemp("metrics") / "tables", demo.folder, flags=("--set", "failure_budget.max_ratio=0.5")
    )
    assert output.code == 0
    return output


def samples(text):
    """Values by metric and labels, read by the library's own parser; every sample has the label ``output``."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "output"}
            assert len(labels) == len(sample.labels) - 1
            found[sample.name, *labels.values()] = sample.value
    return found


def record_of(output):
    (path,) = (output.folder / "_runs").glob("*.json")
    return path, json.loads(path.read_text())


def test_a_finished_run(finished, tmp_path):
    file = tmp_path / "maskdet.prom"
    assert main.main(["status", str(finished.folder), "--metrics", str(file)]) == 0
    found, (_, record) = samples(file.read_text()), record_of(finished)
    assert {key[1]: value for key, value in found.items() if key[0] == "maskdet_run_images"} == record["images"]
    assert {key[1]: value for key, value in found.items() if key[0] == "maskdet_faces"} == record["faces"]
    assert {key[1] for key, value in found.items() if key[0] == "maskdet_run_status" and value == 1} == {"succeeded"}
    assert found["maskdet_run_exit_code",] == 0
    assert found["maskdet_run_shards",] == found["maskdet_run_finished_shards",] == record["shards"]["total"]
    assert found["maskdet_last_success_timestamp_seconds",] == found["maskdet_run_finished_timestamp_seconds",]
    begun, duration_s = found["maskdet_run_started_timestamp_seconds",], found["maskdet_last_success_duration_seconds",]
    assert begun + duration_s == pytest.approx(found["maskdet_run_finished_timestamp_seconds",])


def test_a_prune_is_no_success_of_the_nightly_run(finished, tmp_path):
    """Its record says that it succeeded, but it scores nothing: an alert on a late run must not be silenced by it."""
    folder, file = tmp_path / "tables", tmp_path / "maskdet.prom"
    shutil.copytree(finished.folder, folder)
    _, record = record_of(finished)
    assert main.main(["prune", str(folder), "--before", "2026-03-03"]) == 0
    assert main.main(["status", str(folder), "--metrics", str(file)]) == 0
    found = samples(file.read_text())
    ended = datetime.fromisoformat(record["finished_at"]).timestamp()
    assert found["maskdet_last_success_timestamp_seconds",] == ended < found["maskdet_run_finished_timestamp_seconds",]
    assert found["maskdet_last_success_scored_images",] == record["images_scored_now"] > 0
    rows = pq.read_table(folder / "predictions", columns=["label"])["label"].to_pylist()
    faces = {key[1]: value for key, value in found.items() if key[0] == "maskdet_faces" and value}
    assert faces == Counter(rows) != {label: count for label, count in record["faces"].items() if count}


def test_videos_are_told_from_images(finished):
    _, record = record_of(finished)
    videos = VideoCounts(listed=3, scored=1, failed=2, segments=4, frames=9, frames_scored=9)
    status = read_status(Layout(str(finished.folder)))
    status = replace(status, run=status.run.model_copy(update={"videos": videos}))
    found = samples(generate_latest(run_metrics(status, None, Layout("tables"))).decode())
    told = {key[1]: value for key, value in found.items() if key[0] == "maskdet_run_videos"}
    assert told == {"listed": 3, "scored": 1, "failed": 2}
    assert found["maskdet_run_images", "listed"] == record["images"]["listed"]
    without = samples(
        generate_latest(run_metrics(read_status(Layout(str(finished.folder))), None, Layout("tables"))).decode()
    )
    assert not any(key[0] == "maskdet_run_videos" for key in without)


def test_a_run_that_works_leaves_the_last_success_standing(finished, tmp_path):
    path, record = record_of(finished)
    newer = {**record, "run_id": "99990101T000000.000000Z-abcdef", "status": "running", "finished_at": None}
    later = path.with_name(newer["run_id"] + ".json")
    later.write_text(json.dumps(newer))
    layout = Layout(str(finished.folder))
    lease.acquire(layout, Holder.here(newer["run_id"], datetime.now(UTC), ends_with_process=True))
    file = tmp_path / "maskdet.prom"
    try:
        code = main.main(["status", str(finished.folder), "--metrics", str(file)])
    finally:
        lease.release(layout, newer["run_id"])
        later.unlink()
    assert code == UnfinishedError.exit_code
    found = samples(file.read_text())
    assert ("maskdet_run_finished_timestamp_seconds",) not in found
    assert found["maskdet_run_status", "running"] == 1
    assert found["maskdet_run_exit_code",] == code
    assert found["maskdet_last_success_scored_images",] == record["images_scored_now"]


class Gateway(BaseHTTPRequestHandler):
    """A push gateway that keeps what it receives."""

    def do_PUT(self):
        self.server.pushed.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_pushed_metrics_are_those_of_the_file(finished, tmp_path):
    server = HTTPServer(("127.0.0.1", 0), Gateway)
    server.pushed = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    file = tmp_path / "maskdet.prom"
    gateway = f"http://127.0.0.1:{server.server_port}"
    try:
        assert main.main(["status", str(finished.folder), "--metrics", str(file), "--push-gateway", gateway]) == 0
    finally:
        server.shutdown()
        server.server_close()
    ((path, text),) = server.pushed
    assert unquote(path).startswith("/metrics/job/maskdet/output@base64/")
    assert samples(text) == samples(file.read_text())


@pytest.mark.parametrize("flag", ["--metrics", "--push-gateway"])
def test_where_metrics_cannot_go_the_error_names_the_place(finished, tmp_path, flag, capsys):
    place = str(tmp_path / "missing" / "x.prom") if flag == "--metrics" else "http://127.0.0.1:1"
    assert main.main(["status", str(finished.folder), flag, place]) == StorageError.exit_code
    shown = capsys.readouterr().err
    assert f"metrics for {place}: expected a place that can be written, received" in shown
    assert f"{place}." not in shown  # nor the name of a temporary file
