"""Mistakes of a caller: one clear message, the documented exit code, and nothing half-written."""

import shutil

import pytest

from maskdet import storage
from maskdet.cli import main
from maskdet.errors import EXIT_CODES
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.tables.layout import COMPLIANCE, FAILURES, PREDICTIONS
from maskdet.testing import solid_image

ONE_LINE_LIMIT = 700


@pytest.fixture
def photos(tmp_path):
    """A folder of three images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for value in (10, 120, 240):
        (folder / f"{value}.png").write_bytes(solid_image(value))
    return folder


@pytest.fixture
def refused(tmp_path, capfd):
    """Run a command that must fail before it writes; returns its exit code and its one message."""

    def run(*arguments, output=None):
        output = output or tmp_path / "tables"
        code = main.main(["score", "--output", str(output), *map(str, arguments)])
        captured = capfd.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("maskdet score: ")]
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        assert not (output / "_SUCCESS").exists() if output.is_dir() else True
        assert not list((tmp_path / "tables").rglob("*.parquet"))
        return code, lines[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["--set", "packing.max_image=3"], 2, ["packing.max_image", "did you mean 'max_images'"]),
        (["--set", "packing.max_images=0"], 2, ["packing.max_images", "received 0"]),
        (["--set", "compliance.levels={site: [site]}"], 2, ["compliance.levels.site", "source.template"]),
        (["--set", "source.timezone=Mars/Olympus"], 2, ["source.timezone", "Europe/Berlin"]),
        (["--config", "nowhere.yaml"], 2, ["--config", "nowhere.yaml"]),
        (["--template", "{site"], 2, ["source.template", "every { closed"]),
        (["--template", "{captured_at:%B}/*"], 2, ["source.template", "%Y"]),
        (["--template", "{label}/*"], 2, ["label", "column of the tables"]),
        (["--runer=FlinkRunner"], 2, ["--runer=FlinkRunner", "Did you mean --runner"]),
        (["--backend", "tensorflow", "--precision", "int8"], 2, ["tensorflow", "float32"]),
        (["--set", "model.mask_from=0.1", "--set", "model.no_mask_below=0.9"], 2, ["no_mask_below"]),
        (["--model", "nowhere"], 4, ["--model", "manifest.json", "builtin"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_setting_is_refused_with_what_was_expected(photos, refused, arguments, code, parts):
    found, message = refused("--input", photos, *arguments)
    assert found == code
    assert all(part in message for part in parts), message
    assert len(message) < ONE_LINE_LIMIT


def test_a_bundle_with_a_changed_byte_is_refused(photos, refused, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(BUILTIN_FOLDER, bundle)
    data = bytearray((bundle / "model.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.tflite").write_bytes(data)
    code, message = refused("--input", photos, "--model", bundle)
    assert code == 4
    assert "model.tflite" in message and "SHA-256" in message


@pytest.mark.parametrize("name", ["empty", "missing", "only-notes", "missing.csv", "missing/*.jpg", "missing.jpg"])
def test_an_input_without_images_is_refused(refused, tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-notes").mkdir()
    (tmp_path / "only-notes" / "notes.txt").write_text("no image")
    code, message = refused("--input", tmp_path / name)
    assert code == 3
    assert "--input" in message


def test_no_input_and_no_output_are_refused(photos, refused, capfd):
    assert refused()[0] == 2
    assert main.main(["score", "--input", str(photos)]) == 2
    assert "--output" in capfd.readouterr().err


def test_a_manifest_without_its_column_is_refused(refused, tmp_path):
    (tmp_path / "images.csv").write_text("path,site\na.jpg,north\n")
    code, message = refused("--input", tmp_path / "images.csv")
    assert code == 3
    assert "'uri'" in message and "['path', 'site']" in message


def test_a_path_that_does_not_fit_refuses_the_run_where_so_configured(photos, refused):
    code, message = refused("--input", photos, "--template", "{site}/*.png", "--set", "source.on_mismatch=refuse_run")
    assert code == 3
    assert "source.template" in message and ".png" in message


def test_an_output_that_is_a_file_is_refused(photos, refused, tmp_path):
    (tmp_path / "taken").write_text("mine")
    assert refused("--input", photos, output=tmp_path / "taken")[0] == 8
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("output", [".", "tables", "below/tables"])
def test_an_output_inside_the_input_is_refused(photos, refused, output):
    code, message = refused("--input", photos, output=photos / output)
    assert code == 2
    assert "--output" in message and str(photos) in message


def test_an_output_that_cannot_be_written_is_refused(photos, refused, tmp_path):
    (tmp_path / "taken").write_text("mine")
    code, message = refused("--input", photos, output=tmp_path / "taken" / "below")
    assert code == 5
    assert "cannot" in message


def test_an_output_whose_record_is_damaged_is_refused(photos, refused, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "_snapshot.json").write_text("{}")
    assert refused("--input", photos)[0] == 8


def test_an_output_of_another_input_is_added_to_and_replaced_only_when_told(photos, score, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "77.png").write_bytes(solid_image(77))
    first = score(tmp_path / "tables", photos, template=None).table(PREDICTIONS)["image_uri"].to_pylist()
    added = score(tmp_path / "tables", other, template=None)
    assert added.code == 0
    assert set(added.table(PREDICTIONS)["image_uri"].to_pylist()) == {*first, str(other / "77.png")}
    replaced = score(tmp_path / "tables", other, template=None, flags=("--overwrite",))
    assert replaced.code == 0
    assert replaced.table(PREDICTIONS)["image_uri"].to_pylist() == [str(other / "77.png")]


def test_tables_of_someone_else_are_not_touched(photos, score, tmp_path):
    foreign = tmp_path / "tables" / PREDICTIONS / "theirs.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"theirs")
    assert score(tmp_path / "tables", photos, template=None).code == 8
    assert foreign.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("uri", "flags"),
    [
        (
            "s3://bucket/photos",
            ("--s3_endpoint_url=http://127.0.0.1:9", "--s3_access_key_id=k", "--s3_secret_access_key=s"),
        ),
        ("gs://bucket/photos", ("--no_auth",)),
        ("carrier-pigeon://loft/photos", ()),
    ],
)
def test_a_store_out_of_reach_is_refused_within_the_deadline(refused, monkeypatch, uri, flags):
    monkeypatch.setattr(storage, "REACH_DEADLINE_S", 2.0)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    code, message = refused("--input", uri, *flags)
    assert code == 5
    assert uri in message


def test_too_many_failures_end_the_run_without_success_but_with_its_tables(photos, score, tmp_path, capfd):
    (photos / "broken.png").write_bytes(b"not a picture")
    run = score(tmp_path / "tables", photos, template=None)
    assert run.code == 6
    assert not run.succeeded
    assert "failure_budget.max_ratio" in capfd.readouterr().err
    assert (run.table(PREDICTIONS).num_rows, run.table(FAILURES).num_rows) == (3, 1)
    assert run.table(COMPLIANCE)["images_failed"].to_pylist() == [1]
    assert run.run.status == "over_budget"
    allowed = score(tmp_path / "tables", photos, template=None, flags=("--set", "failure_budget.max_ratio=0.25"))
    assert (allowed.code, allowed.succeeded) == (0, True)
    counted = score(
        tmp_path / "tables",
        photos,
        template=None,
        flags=("--set", "failure_budget.max_ratio=1", "--set", "failure_budget.max_images=0"),
    )
    assert (counted.code, counted.succeeded) == (6, False)


def test_every_exit_code_is_told_by_help(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["score", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"{code}  {meaning}" in shown for code, meaning in EXIT_CODES.items())


def test_an_unknown_command_is_refused_with_those_there_are(capsys):
    assert main.main(["frobnicate"]) == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in main.COMMANDS)
