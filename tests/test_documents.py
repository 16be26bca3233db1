"""What README, the configs and the Makefile promise is what the code does."""

import re
from pathlib import Path

import pytest
import yaml

from maskdet.config import ScoreSettings, load_yaml
from maskdet.errors import EXIT_CODES, FailureCode

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_lists_every_exit_code_with_its_meaning():
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", README, flags=re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_readme_names_every_failure_code():
    assert all(f"`{code.value}`" in README for code in FailureCode)


def test_the_config_of_all_settings_holds_them_all_at_their_defaults():
    written = yaml.safe_load((ROOT / "configs" / "score.yaml").read_text(encoding="utf-8"))
    assert load_yaml(ScoreSettings, ROOT / "configs" / "score.yaml") == ScoreSettings()
    for section, fields in ScoreSettings().model_dump().items():
        if isinstance(fields, dict):
            assert set(written[section]) == set(fields), section


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.name)
def test_every_config_opens_with_its_command_duration_and_result(path):
    opening = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")).lower()
    assert all(word in opening for word in ("maskdet ", "duration", "result"))


def test_every_verb_that_readme_names_is_in_the_makefile():
    verbs = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= verbs
    assert {"help", "setup", "demo", "test", "check", "bench"} <= verbs


def test_versions_are_pinned_without_addresses():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line) for line in lines)
