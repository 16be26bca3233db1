"""`maskdet audit`: a sample, the page for labelling it, the rates that follow, and tables that use the labels."""

from __future__ import annotations

import csv
import http.client
import io
import json
import random
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskdet.answer_schemas import audited_schema
from maskdet.audit.label_page import LabelSession, address, serve
from maskdet.audit.labels import CHOICES, keys_of, read_sample
from maskdet.cli import main
from maskdet.config import ImagingSettings
from maskdet.images.preprocessing import ImageLimits
from maskdet.tables.corrections import read_corrections
from maskdet.tables.layout import Layout
from maskdet.tables.runs import read_run
from maskdet.tables.snapshot import current_snapshot
from maskdet.testing import solid_image
from tests.outputs import face, write_output

START = datetime(2026, 3, 2, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An output of real files, with the truth of each face; the model is wrong about a sixth of them."""
    folder, rng = tmp_path_factory.mktemp("audit"), random.Random(8)
    (folder / "photos").mkdir()
    images, content, truth = [], {}, {}
    for number in range(300):
        path = folder / "photos" / f"{number}.png"
        path.write_bytes(solid_image((number % 250, 40, 90)))
        uri, true = str(path), rng.choice(["mask", "mask", "no_mask", "incorrect", "not_a_face"])
        right = true != "not_a_face" and rng.random() < 0.8
        said = true if right else rng.choice(["mask", "no_mask"])
        content[uri], truth[uri] = path.read_bytes(), true
        images.append((uri, (["north", "south"][number % 2], f"c{number % 5}"), START, [face(said)]))
    write_output(folder / "tables", images, content=content, levels={"site": ("site",)})
    return folder, truth, images


def audit(*arguments):
    return main.main(["audit", *map(str, arguments)])


@pytest.fixture
def sampled(world, tmp_path, capsys):
    folder, truth, _ = world
    file = tmp_path / "audit.parquet"
    assert audit("sample", folder / "tables", "--size", 120, "--by", "site", "--sample", file) == 0
    capsys.readouterr()
    return file, truth


def label(file, truth, rater, wrong=0.0):
    rng = random.Random(rater)
    with file.with_suffix(f".{rater}.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image_uri", "content_sha256", "face_index", "label"])
        for uri, sha256, index in keys_of(read_sample(str(file))):
            writer.writerow([uri, sha256, index, rng.choice(CHOICES) if rng.random() < wrong else truth[uri]])
    return file.with_suffix(f".{rater}.csv")


def test_labels_give_rates_that_hold_whatever_the_model_gets_wrong(world, sampled, tmp_path, capsys):
    folder, _, images = world
    file, truth = sampled
    first, second = label(file, truth, "ana"), label(file, truth, "ben", wrong=0.1)
    flags = ("--labels", first, "--labels", second, "--output", tmp_path / "x.json", "--no-corrections")
    assert audit("apply", folder / "tables", file, *flags) == 0
    out, found = capsys.readouterr().out, json.loads((tmp_path / "x.json").read_text())
    assert "Cohen's kappa" in out
    assert 0.8 < found["agreement"][0]["agreed"] < 1
    assert found["labelled"] + found["disputed"] == 120
    rows = {(row["scope"], row["site"], row["quantity"]): row for row in found["quantities"]}
    assert set(next(iter(rows.values()))) == set(audited_schema(["site"]).names)
    for scope, site in (("all", None), ("group", "north"), ("group", "south")):
        faces = [truth[uri] for uri, (where, _), *_ in images if site in (None, where) and truth[uri] != "not_a_face"]
        expected = sum(one in ("mask", "incorrect") for one in faces) / len(faces)
        row = rows[scope, site, "any_mask_rate"]
        assert row["share_low"] < expected < row["share_high"]
        assert row["share_high"] - row["share_low"] < 0.35
    said = [what[0]["label"] for *_, what in images]
    assert rows["all", None, "any_mask_rate"]["known"] == pytest.approx(
        sum(one != "no_mask" for one in said) / len(said), abs=0.1
    )
    right = [(uri, what[0]["label"]) for uri, _, _, what in images if truth[uri] in ("mask", "incorrect")]
    sensitivity = sum(one != "no_mask" for _, one in right) / len(right)
    row = rows["all", None, "any_mask_sensitivity"]
    assert row["share_low"] < sensitivity < row["share_high"]
    assert not read_corrections(Layout(str(folder / "tables")))


def test_labels_that_are_applied_count_in_the_tables_which_say_so(world, sampled, tmp_path, capsys):
    _, _, images = world
    file, truth = sampled
    write_output(tmp_path / "tables", images, content={uri: Path(uri).read_bytes() for uri, *_ in images},
                 levels={"site": ("site",)})  # fmt: skip
    layout = Layout(str(tmp_path / "tables"))
    assert audit("apply", layout.root, file, "--labels", label(file, truth, "ana")) == 0
    out = capsys.readouterr().out
    assert "corrected 120 labels that people gave count in place of the model's" in out
    drawn = {uri for uri, *_ in keys_of(read_sample(str(file)))}
    assert len(drawn) == 120
    for row in pq.read_table(layout.compliance("site")).to_pylist():
        here = [(uri, what[0]["label"]) for uri, (site, _), _, what in images if site == row["site"]]
        final = [truth[uri] if uri in drawn else said for uri, said in here]
        assert row["faces_corrected"] == sum(uri in drawn for uri, _ in here)
        assert row["faces_mask"] == final.count("mask")
        assert row["faces_incorrect"] == final.count("incorrect")
        assert row["images_scored"] == len(here)
        labelled = sum(final.count(name) for name in ("mask", "incorrect", "no_mask"))
        assert row["any_mask_rate"] == pytest.approx((final.count("mask") + final.count("incorrect")) / labelled)
    run = read_run(layout, current_snapshot(layout).run_id)
    assert (run.status, run.recounted, run.corrections) == ("succeeded", True, 120)
    assert main.main(["files", layout.root, "--table", "compliance"]) == 0


def test_mistakes_are_named(world, sampled, tmp_path, capsys):
    folder, *_ = world
    file, _ = sampled
    bad = tmp_path / "bad.csv"
    bad.write_text("image_uri,content_sha256,face_index,label\n/a,00,0,maks\n")
    (tmp_path / "empty.csv").write_text("image_uri,content_sha256,face_index,label\n")
    assert audit("apply", folder / "tables", file, "--labels", bad) != 0
    assert "line 2" in capsys.readouterr().err
    assert audit("apply", folder / "tables", file, "--labels", tmp_path / "empty.csv") == 2
    assert audit("apply", folder / "tables", bad, "--labels", bad) != 0
    assert audit("label", file, "--rater", "../x") == 2
    assert "--rater" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in (taken.getsockname()[1], 65536):
            assert audit("label", file, "--rater", "x", "--no-browser", "--port", port) == 2
            assert "--port: expected a port that is free" in capsys.readouterr().err


class Page:
    """A page that is served, and someone who reads it."""

    def __init__(self, server, session):
        self.where = urlsplit(address(server, session))

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.where.port, timeout=10)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


@pytest.fixture
def page(sampled):
    file, _ = sampled
    session = LabelSession(read_sample(str(file)), str(file.with_suffix(".ana.csv")), ImageLimits.of(ImagingSettings()))
    server = serve(session)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Page(server, session), session, file
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_label_is_saved_at_once_and_there_the_next_time(page):
    served, session, file = page
    root = f"/{session.token}"
    status, body, headers = served.ask("GET", f"{root}/")
    assert status == 200
    assert all(f'data-label="{choice}"' in body.decode() for choice in CHOICES)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert served.ask("POST", f"{root}/label/3", "no_mask")[0] == 204
    assert served.ask("POST", f"{root}/label/3", "mask")[0] == 204
    assert json.loads(served.ask("GET", f"{root}/state")[1])["labels"][3] == "mask"
    rows = list(csv.DictReader(io.StringIO(file.with_suffix(".ana.csv").read_text())))
    assert [row["label"] for row in rows] == ["mask"]
    again = LabelSession(session.sample, session.labels_uri, session.limits)
    assert again.given()[3] == "mask"
    assert again.token != session.token


def test_faces_are_cut_out_when_they_are_looked_at(page):
    served, session, _ = page
    status, body, _ = served.ask("GET", f"/{session.token}/face/0")
    assert status == 200
    assert Image.open(io.BytesIO(body)).size == (384, 384)
    gone = session.sample.set_column(0, "image_uri", [["/nowhere.png"] * session.sample.num_rows])
    session.sample = gone
    assert served.ask("GET", f"/{session.token}/face/0")[:2] == (410, b"gone since it was scored")


def test_the_model_s_label_is_not_told(page):
    served, session, _ = page
    told = b"".join(served.ask("GET", f"/{session.token}/{path}")[1] for path in ("", "state"))
    assert b"probability" not in told
    assert json.loads(served.ask("GET", f"/{session.token}/state")[1]) == {"labels": [None] * len(session)}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("GET", "/wrong/state", {}, 404),
        ("GET", "/{token}/face/9999", {}, 404),
        ("GET", "/{token}/face/-1", {}, 404),
        ("GET", "/{token}/../../etc/passwd", {}, 404),
        ("GET", "/{token}/state", {"Host": "evil.example:80"}, 404),
        ("POST", "/wrong/label/0", {}, 404),
        ("POST", "/{token}/label/9999", {}, 400),
        ("POST", "/{token}/label/0", {"Origin": "http://evil.example"}, 404),
    ],
)
def test_strangers_and_other_places_get_nothing(page, method, path, headers, status):
    served, session, file = page
    assert served.ask(method, path.format(token=session.token), "mask", **headers)[0] == status
    assert not file.with_suffix(".ana.csv").exists()


def test_what_is_no_label_is_refused(page):
    served, session, _ = page
    for body in ("maks", "", "m" * 100):
        assert served.ask("POST", f"/{session.token}/label/0", body)[0] == 400
