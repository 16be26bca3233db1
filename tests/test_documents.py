"""The code does what the documents, the configs and the Makefile promise."""

import ast
import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import yaml

from maskdet.cli.main import COMMANDS, main
from maskdet.config import ScoreSettings, load_yaml
from maskdet.demo.faces import write_demo_tree
from maskdet.errors import EXIT_CODES, FailureCode
from tools import draw_classes, draw_imports, draw_run
from tools.documents import commands, hooks, parsers, reference
from tools.documents.pages import Block, blocks, broken_links, inline_code, pages

ROOT = Path(__file__).parents[1]
RUNNABLE = sorted({block.page for page in pages() for block in blocks(page) if block.folders is not None})


def test_the_reference_has_every_command_and_each_of_its_flags():
    page = reference.commands_page()
    assert [f"## {name}" for name in COMMANDS] == re.findall(r"^## .+$", page, flags=re.MULTILINE)
    flags = {flag for command in parsers.commands().values() for flag in parsers.flags(command.parser)}
    assert {"--input", "--runner-config", "--sheet-seed", "--rater"} <= flags
    assert not {flag for flag in flags - {"-h", "--help"} if f"`{flag}" not in page}


def test_the_reference_describes_every_setting():
    page = reference.settings_page()
    rows = {row[0].strip(" `"): row for row in (line.strip("|").split(" | ") for line in page.splitlines())}
    assert rows["packing.max_images"][1:3] == ["whole number ≥ 1", "`1000`"]
    assert rows["faces.mode"][1:3] == ["`auto` or `detect` or `whole`", '`"auto"`']
    undescribed = [line for line in page.splitlines() if line.startswith("| `") and re.search(r"\|\s*\|$", line)]
    assert not undescribed
    assert rows["failure_budget.max_ratio"][1] == "number ≥ 0, ≤ 1"


def test_the_reference_lists_every_exit_code_with_its_meaning():
    rows = re.findall(r"^\| (\d+) \| (.+?) \|$", reference.exit_codes_page(), flags=re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_the_reference_explains_every_failure_code():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (yes|no) \| (\S.*) \|$", reference.failure_codes_page(), re.MULTILINE)
    assert {(code, stage, transient == "yes") for code, stage, transient, _ in rows} == {
        (code.value, code.stage.value, code.transient) for code in FailureCode
    }


def test_the_reference_has_the_columns_of_every_table():
    page = reference.tables_page()
    assert all(f"## {name}\n" in page for name in ("predictions", "failures", "no_face", "compliance"))
    assert "| `face_width_px` | float | yes | width of the face, in pixels |" in page


def test_pages_of_the_site_are_in_its_navigation():
    # Read as text, because the file may hold tags that only mkdocs knows.
    listed = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed == written | set(reference.pages()) | set(hooks.TOP_LEVEL.values())


def test_the_site_builds_with_its_links_checked_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), check=False, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "maskdet.scoring.scorer.Scorer" in (tmp_path / "reference" / "api" / "scoring.html").read_text("utf-8")
    foreign = re.compile(r'<(?:script|img|link)[^>]+(?:src|href)="?https?://[^">]+')
    assert not {found for path in tmp_path.rglob("*.html") for found in foreign.findall(path.read_text("utf-8"))}


def test_links_lead_somewhere():
    assert not [link for page in pages() for link in broken_links(page)]


def test_links_of_a_top_level_page_fit_its_place_in_the_site():
    text = "[a](docs/guides/flink.md#x) [b](SECURITY.md) ![c](docs/images/run.svg) [d](https://e.org) [f](#g)"
    moved = "[a](../guides/flink.md#x) [b](../security.md) ![c](../images/run.svg) [d](https://e.org) [f](#g)"
    assert hooks.relocate(text, "contributing/index.md") == moved


def test_commands_in_documents_are_commands_that_exist():
    shown = [block for page in pages() for block in blocks(page) if block.language == "sh"]
    assert len(shown) > 20
    assert not [problem for block in shown for problem in commands.problems(block)]


def test_architecture_names_every_room():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert not [room for room in draw_imports.read_imports() if f"`{room}`" not in text]


def test_inline_code_names_what_exists():
    found = [(commands.inline_problem(code), code, place) for page in pages() for code, place in inline_code(page)]
    assert not [f"{place}: {code}: {problem}" for problem, code, place in found if problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("maskdet scroe", "maskdet scroe: no such command"),
        ("maskdet score --input a --output b --tempate c", "expected a flag of the command or of Beam"),
        ("maskdet score --input a --set packing.max_image=3", "unknown key 'packing.max_image'"),
        ("maskdet train --config configs/train/compact.yaml", "the following arguments are required: --output"),
        ("maskdet demo --output a --runner=x", "unknown arguments ['--runner=x']"),
        ("make dmeo", "make dmeo: no such verb"),
        ("pip install '.[fats]'", "no such extra: fats"),
        ("python -m tools.compare --crad x", "--config"),
        ("true && mkadet score", "unknown program: mkadet"),
        ("maskdet score --input a --config configs/scroe.yaml", "configs/scroe.yaml: no such file"),
        ("maskdet score --input a --config dmeo", "dmeo"),
        ("maskdet score --input a --runner-config flnik", "flnik"),
        ("30 2 * * *  flock -n /tmp/lock maskdet scroe --quiet >> log", "maskdet scroe: no such command"),
    ],
)
def test_a_command_that_does_not_exist_is_found(text, problem):
    found = commands.problems(Block(ROOT / "README.md", 1, "sh", text, None))
    assert any(problem in one for one in found), found


def test_python_in_documents_is_python():
    for page in pages():
        for block in blocks(page):
            if block.language == "python":
                compile(block.text, block.place, "exec")


def test_commands_in_python_of_documents_are_commands_that_exist():
    """Airflow's operators take commands as strings."""
    found = []
    for page in pages():
        for block in blocks(page):
            if block.language == "python":
                calls = [node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.keyword)]
                texts = [ast.literal_eval(node.value) for node in calls if node.arg == "bash_command"]
                found += [dataclasses.replace(block, language="sh", text=text) for text in texts]
    assert len(found) >= 2
    assert not [problem for block in found for problem in commands.problems(block)]


def test_drawings_are_current():
    images = ROOT / "docs" / "images"
    assert (images / "run.svg").read_text(encoding="utf-8") == draw_run.draw(), "python -m tools.draw_run"
    assert (images / "classes.svg").read_text(encoding="utf-8") == draw_classes.draw(), "python -m tools.draw_classes"
    drawing = draw_imports.draw(draw_imports.read_imports())
    assert (images / "imports.svg").read_text(encoding="utf-8") == drawing, "python -m tools.draw_imports"


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory):
    """The folders that blocks in the documents use: photos, labelled images, and tables of both."""
    folder = tmp_path_factory.mktemp("documents")
    tree = write_demo_tree(folder / "all", images_per_hour=1)
    for file in tree.files:
        if file.masked is not None:
            for target in (f"photos/{file.path}", f"labelled/{'with' if file.masked else 'without'}_mask/{file.path}"):
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / "all" / file.path, folder / target)
    config = ["--config", str(ROOT / "configs" / "demo.yaml"), "--quiet"]
    assert main(["score", *config, "--input", f"{folder}/photos", "--output", f"{folder}/tables"]) == 0
    whole = ["--faces", "whole", "--quiet"]
    assert main(["score", "--input", f"{folder}/labelled", "--output", f"{folder}/labelled-tables", *whole]) == 0
    return folder


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_what_a_page_shows_runs(page, demo_folder, tmp_path, monkeypatch):
    shown = [block for block in blocks(page) if block.folders is not None]
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in {name for block in shown for name in block.folders}:
        shutil.copytree(demo_folder / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for block in shown:
        run(block)


def run(block):
    """Run a block in this process, since a new one needs seconds for imports; what needs a shell gets one."""
    if block.language == "python":
        exec(compile(block.text, block.place, "exec"), {"__name__": "__main__"})
    elif block.language == "sql":
        duckdb.sql(block.text).show()
    elif (lines := maskdet_commands(block.text)) is not None:
        for line in lines:
            assert main(line) == 0, f"{block.place}: maskdet {shlex.join(line)}"
    else:
        command = ["bash", "-euo", "pipefail", "-c", block.text]
        done = subprocess.run(command, env=environment(), check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{block.place}: {(done.stdout + done.stderr)[-2000:]}"


def maskdet_commands(text):
    """The arguments of each line's `maskdet`; ``None`` if the text holds anything else."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            bare = re.sub(r"'[^']*'|\"[^\"]*\"|\s#.*", "", line)
            if words[0] != "maskdet" or re.search(r"[^\w\s/.,:=-]", bare):
                return None
            found.append(words[1:])
    return found


def test_only_lines_that_need_no_shell_run_without_one():
    assert maskdet_commands("maskdet score --input 'a b/*' \\\n  --set x=1  # so | that\n\nmaskdet status t/\n") == [
        ["score", "--input", "a b/*", "--set", "x=1"],
        ["status", "t/"],
    ]
    for text in (
        "test -e t && maskdet inspect t",
        "maskdet report t > r",
        "maskdet demo --output $A",
        "ls",
        "maskdet demo *",
    ):
        assert maskdet_commands(f"maskdet status t\n{text}") is None, text


def environment():
    programs = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_the_config_of_all_settings_holds_them_all_at_their_defaults():
    written = yaml.safe_load((ROOT / "configs" / "score.yaml").read_text(encoding="utf-8"))
    assert load_yaml(ScoreSettings, ROOT / "configs" / "score.yaml") == ScoreSettings()
    for section, fields in ScoreSettings().model_dump().items():
        if isinstance(fields, dict):
            assert set(written[section]) == set(fields), section


def test_every_config_opens_with_its_command_duration_and_result():
    offenders = []
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        opening = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        words = "\n".join(opening).lower()
        offenders += [f"{path.name}: {word}" for word in ("maskdet ", "duration", "result") if word not in words]
    assert not offenders


def test_versions_are_pinned_without_addresses():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+", line) for line in lines)
