"""Commands that read an output, where there is none: the error says so, and which name may have been meant."""

import pytest

from maskdet.cli import main
from maskdet.errors import SourceError
from maskdet.tables.layout import Layout
from maskdet.tables.snapshot import table_files
from maskdet.tables.status import read_status

READING = {
    "status": ("status", "OUT"),
    "status of a run": ("status", "OUT", "--run", "20260105T081500Z-000001"),
    "inspect": ("inspect", "OUT"),
    "report": ("report", "OUT"),
    "explore": ("explore", "OUT"),
    "prune": ("prune", "OUT", "--before", "2026-03-02"),
    "prune, dry": ("prune", "OUT", "--before", "2026-03-02", "--dry-run"),
    "files": ("files", "OUT"),
    "delta": ("delta", "OUT"),
    "diff": ("diff", "OUT", "OUT"),
    "diff of periods": ("diff", "OUT", "--before", "..2026-03-08", "--after", "2026-03-09.."),
    "compare-runs": ("compare-runs", "OUT", "OUT"),
    "audit sample": ("audit", "sample", "OUT", "--sample", "sample.parquet", "--size", "10"),
    "audit apply": ("audit", "apply", "OUT", "sample.parquet", "--labels", "labels.csv"),
}


def run(arguments, output):
    return main.main([str(output) if argument == "OUT" else argument for argument in arguments])


@pytest.mark.parametrize("command", READING)
def test_one_that_does_not_exist_is_a_missing_input(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    assert run(READING[command], tmp_path / "tables") == 3
    said = "expected a folder that maskdet score wrote, received"
    assert f"output: {said} '{tmp_path}/tables'. It does not exist; check the path." in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]  # and nothing is made there


@pytest.mark.parametrize("command", READING)
def test_a_folder_without_tables_and_a_file_are_none_either(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(READING[command], tmp_path / "empty") == 3
    said = "Check the run's id" if "--run" in READING[command] else "Run maskdet score first"
    assert said in capsys.readouterr().err
    (tmp_path / "file").write_text("no tables")
    assert run(READING[command], tmp_path / "file") == 3
    assert "It is a file; name the folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(set(READING) - {"status of a run"}))
def test_a_place_inside_an_output_is_told_as_such(command, tmp_path, capsys):
    tables = tmp_path / "tables"
    for name in ("predictions/x.parquet", "_runs/20260105T081500Z-000001.json"):
        (tables / name).parent.mkdir(parents=True, exist_ok=True)
        (tables / name).touch()
    for inside in ("predictions", "predictions/x.parquet", "_files/images", "predictoins"):
        assert run(READING[command], tables / inside) == 3
        assert f"received '{tables / inside}'. It lies in the output {tables}: name that." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("tabels", "tables"),
        ("Tables", "tables"),
        ("tabels/march", "tables/march"),
        ("tables/marsh", "tables/march"),
        ("tabels/june", "tables"),  # there is no such month: as far as it goes
        ("file/march", None),  # a file, in which nothing can be
        ("x", None),
    ],
)
def test_a_near_name_is_told(asked, meant, tmp_path, capsys):
    (tmp_path / "tables" / "march").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert run(("status", "OUT"), tmp_path / asked) == 3
    remedy = "check the path." if meant is None else f"did you mean '{tmp_path / meant}'?"
    assert f"It does not exist; {remedy}\n" in capsys.readouterr().err


def test_callers_in_python_get_the_same_error(tmp_path):
    output = str(tmp_path / "none")
    with pytest.raises(SourceError, match="It does not exist"):
        table_files(output)
    with pytest.raises(SourceError, match="It does not exist"):
        read_status(Layout(output))


def test_an_input_that_does_not_exist_gets_the_same_help(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").touch()
    (tmp_path / "list.csv").touch()
    (tmp_path / "empty").mkdir()
    for asked, remedy in (
        ("fotos", f"Nothing is there; did you mean '{tmp_path}/photos'?"),
        ("lsit.csv", f"Nothing exists there; did you mean '{tmp_path}/list.csv'?"),
        ("none", "Nothing is there; check the path."),
        ("empty", "It is empty; check the path."),
        ("photos/*.jpg", "Nothing is there; check the path and, for globs, the quotes."),
    ):
        assert main.main(["score", "--input", str(tmp_path / asked), "--output", str(tmp_path / "tables")]) == 3
        assert remedy in capsys.readouterr().err
