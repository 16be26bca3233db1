"""``privacy.uri: hmac``: no file of an output, no line of a log or terminal, and no page contains an image's name."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet.audit.label_page import LabelSession
from maskdet.cli.diff import main as diff
from maskdet.cli.evaluate import main as evaluate
from maskdet.cli.report import main as report
from maskdet.errors import ConfigError
from maskdet.images.preprocessing import ImageLimits
from maskdet.report.face_crops import read_crops
from maskdet.report.marks import NAMELESS
from maskdet.storage import faults
from maskdet.tables.layout import FAILURES, NO_FACE, PREDICTIONS
from maskdet.testing import solid_image

KEY = "0123456789abcdef-a-key-of-tests"
HIDE = ("--set", "privacy.uri=hmac", "--set", "failure_budget.max_ratio=0.9")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MASKDET_URI_KEY", KEY)
    monkeypatch.setattr(faults._Names, "withheld", False)


@pytest.fixture
def photos(demo, tmp_path):
    """The demo's images under names that no other text contains, and every kind of fault."""
    folder = shutil.copytree(demo.folder, tmp_path / "photos")
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        path.rename(path.with_name(f"Ottokar-{number:03d}{path.suffix}"))
    (folder / "Ottokar-misplaced.png").write_bytes(solid_image(9))
    beside = max(folder.rglob("Ottokar-*.jpg"), key=lambda path: (len(path.parts), path))  # where the template fits
    beside.with_name("Ottokar-dangling.jpg").symlink_to(folder / "Ottokar-gone.jpg")
    return folder


def named(path, key=KEY):
    """What replaces a name, by the definition of HMAC."""
    return "hmac:" + hmac.new(key.encode(), str(path).encode(), hashlib.sha256).hexdigest()[:32]


def uris(output):
    return {uri for name in (PREDICTIONS, FAILURES, NO_FACE) for uri in output.table(name)["image_uri"].to_pylist()}


def texts_of(folder):
    """Every file of an output; compressed ones decompressed."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        yield path, data + path.name.encode()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path, repr(table.schema.metadata).encode() + json.dumps(table.to_pylist(), default=str).encode()


def test_no_file_and_no_line_holds_a_name(photos, score, tmp_path, capfd, caplog):
    output = score(tmp_path / "tables", photos, flags=HIDE)
    assert output.code == 0
    files = [path for path in photos.rglob("Ottokar-*") if path.suffix != ".txt"]
    assert uris(output) == {named(path) for path in files}
    assert report([str(output.folder)]) == 0
    assert score(tmp_path / "tables", photos, flags=(*HIDE, "--dry-run")).code == 0
    found = [path for path, text in texts_of(output.folder) if b"Ottokar" in text or KEY.encode() in text]
    assert found == []
    assert len(list(texts_of(output.folder))) > 20
    assert "Ottokar" not in "".join(capfd.readouterr()) + caplog.text
    messages = {row["code"]: row["message"] for row in output.table(FAILURES).to_pylist()}
    assert (
        messages["path_mismatch"]
        == messages["not_found"]
        == ("withheld, since it may hold the image's name (privacy.uri)")
    )
    assert "JPEG" in messages["corrupt_image"] or "PNG" in messages["corrupt_image"]  # of the content it is told


def test_rows_are_those_of_plain_names_under_others(photos, score, tmp_path):
    hidden = score(tmp_path / "hidden", photos, flags=HIDE)
    plain = score(tmp_path / "plain", photos, flags=HIDE[2:])
    rows = plain.table(PREDICTIONS)
    place = rows.column_names.index("image_uri")
    renamed = rows.set_column(place, "image_uri", pa.array([named(uri) for uri in rows["image_uri"].to_pylist()]))
    assert renamed.sort_by("image_uri").to_pylist() == hidden.table(PREDICTIONS).sort_by("image_uri").to_pylist()
    assert hidden.run.images == plain.run.images


def test_outputs_grow_under_one_key_and_no_other(photos, score, tmp_path, monkeypatch, capfd):
    first = score(tmp_path / "tables", photos, flags=HIDE)
    before = first.contents()
    assert score(tmp_path / "tables", photos, flags=HIDE).run.images_scored_now == 1  # the link is tried again
    new = next(path for path in photos.rglob("Ottokar-*.jpg") if path.is_file()).with_name("Ottokar-new.png")
    new.write_bytes(solid_image(99))
    assert score(tmp_path / "tables", photos, flags=HIDE).run.changes["added"] == 1
    new.unlink()
    kept = score(tmp_path / "tables", photos, flags=HIDE)
    assert kept.run.changes["gone"] == 1
    assert named(new) in uris(kept)
    removed = score(tmp_path / "tables", photos, flags=(*HIDE, "--set", "tables.on_gone=remove"))
    assert removed.contents() == before
    capfd.readouterr()
    monkeypatch.setenv("MASKDET_URI_KEY", "another key of sixteen bytes")
    assert score(tmp_path / "tables", photos, flags=HIDE).code == 8
    fingerprint = hmac.new(KEY.encode(), b"fingerprint of a key of maskdet's privacy.uri", "sha256").hexdigest()[:16]
    assert f"privacy.uri hmac with the key of fingerprint {fingerprint}" in capfd.readouterr().err
    assert score(tmp_path / "tables", photos, flags=HIDE[2:]).code == 8  # nor does a run with plain names
    assert first.contents() == before


def test_a_displaced_image_is_read_where_it_is(photos, score, tmp_path):
    """Its row stays under the hidden name; with other decoding it is scored anew, from its place."""
    score(tmp_path / "tables", photos, flags=HIDE)
    site = sorted(path for path in photos.iterdir() if path.is_dir())[0]
    flags = (*HIDE, "--set", "tables.max_gone_ratio=1", "--set", "imaging.jpeg_draft=false")
    after = score(tmp_path / "tables", site, flags=flags)
    assert after.code == 0
    assert after.run.changes["displaced"] > 10
    assert "read_error" not in after.run.failed_by_code


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "none"), ("short", "5 bytes"), ("               x               ", "1 bytes")],
)
def test_a_run_without_a_proper_key_is_refused(photos, score, tmp_path, monkeypatch, capfd, value, message):
    if value is None:
        monkeypatch.delenv("MASKDET_URI_KEY")
    else:
        monkeypatch.setenv("MASKDET_URI_KEY", value)
    assert score(tmp_path / "tables", photos, flags=HIDE).code == 2
    shown = capfd.readouterr().err
    assert "privacy.uri_key" in shown
    assert message in shown
    assert "openssl rand -hex 32" in shown
    assert not (tmp_path / "tables").exists()


def test_the_key_may_lie_in_a_file(photos, score, tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")
    flags = (*HIDE, "--set", f"privacy.uri_key=file:{tmp_path / 'key'}")
    assert named(photos / "Ottokar-misplaced.png") in uris(score(tmp_path / "tables", photos, flags=flags))


def test_a_refused_run_names_no_path(photos, score, tmp_path, capfd):
    refused = score(tmp_path / "tables", photos, flags=(*HIDE, "--set", "source.on_mismatch=refuse_run"))
    assert refused.code == 3
    shown = "".join(capfd.readouterr())
    assert "source.template" in shown
    assert "Ottokar" not in shown + refused.run.reason


def test_a_list_that_names_images_elsewhere_is_refused_without_naming_them(photos, score, tmp_path, capfd):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "images.txt").write_text("\n".join(map(str, photos.rglob("Ottokar-*.jpg"))))
    refused = score(tmp_path / "tables", tmp_path / "lists" / "images.txt", flags=HIDE, template=None)
    assert refused.code == 3
    shown = capfd.readouterr().err
    assert "expected images in" in shown
    assert "Ottokar" not in shown
    assert "photos" not in shown


def test_videos_are_hidden_too(score, tmp_path):
    from tests.video.clips import film, numbered

    (tmp_path / "films").mkdir()
    path = film(tmp_path / "films" / "Ottokar.mp4", [numbered(number) for number in range(50)])
    (tmp_path / "films" / "Ottokar-broken.mp4").write_bytes(b"no film")
    output = score(tmp_path / "tables", tmp_path / "films", flags=(*HIDE, "--set", "video.mode=score"), template=None)
    assert output.code == 0
    assert output.run.videos.scored == 1
    assert set(output.table(PREDICTIONS)["image_uri"].to_pylist()) == {named(path)}
    assert [path for path, text in texts_of(output.folder) if b"Ottokar" in text] == []


def test_what_needs_names_says_so(photos, score, tmp_path, capfd):
    output = score(tmp_path / "tables", photos, flags=HIDE)
    rows = output.table(PREDICTIONS).slice(0, 2)
    assert read_crops(rows.to_pylist(), ImageLimits(), 32, 1) == [NAMELESS, NAMELESS]
    with pytest.raises(ConfigError, match="hidden names"):
        LabelSession(rows, str(tmp_path / "labels.csv"), ImageLimits())
    capfd.readouterr()
    assert report([str(output.folder), "--faces", "3"]) == 2
    assert "hidden names (privacy.uri)" in capfd.readouterr().err
    assert evaluate(["--input", str(photos), "--output", str(tmp_path / "e"), "--set", "privacy.uri=hmac"]) == 2
    assert "truth is told of images by their names" in capfd.readouterr().err
    assert diff([str(output.folder), str(output.folder)]) == 0  # which needs none


def test_the_explorer_shows_why_there_is_no_picture(photos, score, tmp_path):
    from maskdet.explore.pictures import Pictures
    from maskdet.explore.row_ids import RowId
    from maskdet.report.database import Tables

    output = score(tmp_path / "tables", photos, flags=HIDE)
    with Tables(str(output.folder)) as tables:
        place = RowId("faces", 0, 0)
        assert Pictures(tables).whole(place) == Pictures(tables).crop(place) == NAMELESS
