"""Configs of the package: found by name, listed, shown, and the message for a name that does not exist."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from maskdet.beam.options import parse_beam_options
from maskdet.cli.config import main
from maskdet.config import ScoreSettings, load_yaml
from maskdet.errors import ConfigError
from maskdet.named_configs import RECIPES, RUNNERS, find_config, list_configs

ROOT = Path(__file__).parents[2]


def test_every_config_is_listed_with_the_flag_that_takes_it(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list((ROOT / "configs").rglob("*.yaml")))
    assert [line for line in lines if line.startswith("--runner-config flink ")]
    assert [line for line in lines if line.startswith("--config demo ")]
    assert [line for line in lines if line.startswith("train --config compact ")]


def test_a_shown_config_is_the_file_and_can_be_used(capsys, tmp_path):
    assert main(["show"]) == 0
    text = capsys.readouterr().out
    assert text == (ROOT / "configs" / "score.yaml").read_text(encoding="utf-8")
    (tmp_path / "my.yaml").write_text(text)
    assert load_yaml(ScoreSettings, tmp_path / "my.yaml") == ScoreSettings()
    assert main(["show", "flink"]) == 0
    assert capsys.readouterr().out == (ROOT / "configs" / "runners" / "flink.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "dmeo"], "received 'dmeo'. Did you mean 'demo'?"),
        (["show", "xyz"], "maskdet config list names them"),
        (["list", "demo"], "maskdet config show NAME"),
    ],
)
def test_a_wrong_name_ends_with_the_remedy(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_names_are_of_their_flag(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # what `maskdet demo --output demo` leaves
    assert find_config("demo").name == "demo.yaml"
    assert find_config("flink", RUNNERS).parent.name == "runners"
    assert find_config("compact", RECIPES).parent.name == "train"
    with pytest.raises(ConfigError, match="--config: expected a YAML file, or the name"):
        find_config("flink")
    (tmp_path / "mine.yaml").write_text("{}")
    assert find_config("mine.yaml") == Path("mine.yaml")
    with pytest.raises(ConfigError, match=r"The package has one: --config demo\."):
        find_config("configs/demo.yaml")
    with pytest.raises(ConfigError, match="No file is there"):
        find_config("configs/other.yaml")


def test_settings_and_beam_options_load_by_name():
    assert load_yaml(ScoreSettings, "demo").faces.mode == "whole"
    assert parse_beam_options([], "flink").get_all_options()["runner"] == "PortableRunner"


def test_configs_are_sorted_and_unique():
    names = [config.name for config in list_configs()]
    assert len(names) == len(set(names))  # so that `config show` needs no folder


def test_a_wheel_holds_the_configs_and_no_path_of_the_checkout(tmp_path):
    source = tmp_path / "source"  # what an earlier build left in the checkout would come along
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("maskdet", "configs", "tools"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ".",
    ]
    done = subprocess.run([str(word) for word in command], cwd=source, check=False, capture_output=True, text=True)
    if "No module named" in done.stderr or "Cannot import 'setuptools" in done.stderr:
        pytest.skip("no setuptools to build with")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("maskdet-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        texts = {name: packed.read(name) for name in names if name.endswith((".py", ".yaml"))}
        packed.extractall(tmp_path / "site")
    own = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert {f"maskdet/{name}" for name in own} <= names
    assert not {name for name in names if name.split("/")[0] in ("tests", "tools", "pipelines", "benchmarks")}
    assert not {name for name, text in texts.items() if b"../shared" in text}
    code = "from maskdet.named_configs import find_config; print(find_config('demo'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == str(tmp_path / "site" / "maskdet" / "configs" / "demo.yaml")
