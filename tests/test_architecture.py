"""The arrows between modules point one way, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room may import from those before it, and its own.
ROOMS = [
    ["errors"],
    ["templates", "progress", "drawing", "codecs"],
    ["records", "config", "synthetic"],
    ["storage", "imaging", "packing"],
    ["layout", "manifests", "compliance", "fetching"],
    ["sources"],
    ["model"],
    ["viewing"],
    ["detection"],
    ["scoring", "testing"],
    ["preparation"],
    ["composites"],
    ["receipts"],
    ["runs", "telemetry"],
    ["status"],
    ["launch"],
    ["showing"],
    ["evaluation"],
    ["training"],
    ["dryrun", "summary", "console", "beam_options", "lean_imports", "lean_beam", "jobs"],
    ["transforms"],
]
RANK = {name: rank for rank, room in enumerate(ROOMS) for name in room}
MODULES = sorted((ROOT / "maskdet").rglob("*.py"))


def room_of(path: Path) -> str | None:
    parts = path.relative_to(ROOT / "maskdet").parts
    return None if parts[0] == "__init__.py" else parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_every_module_has_a_room():
    assert {room_of(path) for path in MODULES} - {None} == set(RANK)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_to_earlier_rooms(path):
    own = room_of(path)
    if own is None:
        return
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("maskdet.")} & set(RANK)
    assert all(RANK[room] < RANK[own] or room == own for room in rooms), sorted(rooms)
    assert not any(name.startswith("pipelines") for name in imported(path))


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("apache_beam", {"storage", "transforms", "preparation", "beam_options", "lean_beam", "jobs", "telemetry"}),
        ("tensorflow", {"model", "training", "detection"}),
        ("keras", {"model", "training"}),
        ("ai_edge_litert", {"model", "training", "detection"}),
        ("onnxruntime", {"model"}),
        ("tf2onnx", {"model"}),
    ],
)
def test_heavy_libraries_stay_in_their_rooms(library, rooms):
    users = {room_of(path) for path in MODULES if any(name.split(".")[0] == library for name in imported(path))}
    assert users <= rooms


def test_beam_stays_in_storage_and_the_transforms_of_a_package():
    users = {
        str(path.relative_to(ROOT / "maskdet"))
        for path in MODULES
        if path.parent not in (ROOT / "maskdet", ROOT / "maskdet" / "storage")
        and any(name.split(".")[0] == "apache_beam" for name in imported(path))
    }
    assert all(name.endswith("/transforms.py") for name in users), users


def test_a_scoring_worker_never_imports_tensorflow():
    code = (
        "import sys, numpy as np, maskdet.cli.score;"
        "from maskdet.model.backends import RuntimeSpec, load_model;"
        "load_model('builtin', RuntimeSpec());"
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "pipelines").glob("*.py"))], ids=lambda path: path.name)
def test_files_and_functions_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (120 if path.parent.name == "pipelines" else 400)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            docstring = ast.get_docstring(node, clean=False) or ""
            assert node.end_lineno - node.lineno - docstring.count("\n") <= 40, node.name
