"""Imports between parts of the package point one way, and heavy libraries are imported only where they belong."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "maskdet", ROOT / "tests"

# Each part ("room") may import from those above it, and from itself.
ROOMS = [
    ["errors"],
    ["labels", "schemas", "templates", "demo", "cores", "background", "memory", "process_limits", "loopback"],
    ["named_configs", "sections", "answer_schemas", "children"],
    ["config"],
    ["resolved"],
    ["storage", "images"],
    ["video"],
    ["inputs"],
    ["compliance", "tracks"],
    ["tables"],
    ["model"],
    ["faces"],
    ["scoring", "testing"],
    ["preparation"],
    ["evaluation"],
    ["report", "training"],
    ["live", "audit", "explore"],
    ["beam"],
    ["api"],
    ["cli"],
]
RANK = {name: rank for rank, rooms in enumerate(ROOMS) for name in rooms}

# Parts or files that may import a library; no other may.
HEAVY = {
    "apache_beam": ("storage/", "beam/", "api.py", "cli/"),
    "tensorflow": ("model/", "training/"),
    "keras": ("model/", "training/"),
    "ai_edge_litert": ("model/", "training/", "faces/"),
    "onnxruntime": ("model/", "faces/"),
    "tf2onnx": ("model/",),
    "av": ("video/", "live/"),
    "sklearn": ("evaluation/baselines.py",),
    "duckdb": ("report/", "explore/"),
    "starlette": ("explore/",),
    "uvicorn": ("explore/",),
}
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").rglob("*.py"))
MOST_LINES, MOST_FUNCTION_LINES = 500, 40


def place(path):
    return path.relative_to(PACKAGE).as_posix()


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@functools.cache
def imported(path):
    """Dotted names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_imports_point_to_earlier_rooms():
    offenders = set()
    for path in MODULES:
        own = room_of(path)
        if own == "__init__":  # the package itself, which exports the public API
            continue
        parts = [name.split(".") for name in imported(path)]
        offenders |= {f"{place(path)} imports {words[0]}" for words in parts if words[0] in ("pipelines", "tools")}
        for room in {words[1] for words in parts if words[0] == "maskdet" and len(words) > 1} - {"__version__", own}:
            if room not in RANK or own not in RANK or RANK[room] >= RANK[own]:
                offenders.add(f"{place(path)} imports {room}")
    assert not offenders


def test_heavy_libraries_stay_in_their_rooms():
    offenders = {
        f"{place(path)} imports {library}"
        for library, places in HEAVY.items()
        for path in MODULES
        if any(name.split(".")[0] == library for name in imported(path)) and not place(path).startswith(places)
    }
    assert not offenders


def test_a_scoring_worker_never_imports_tensorflow():
    code = (
        "import sys, numpy as np, maskdet.cli.score;"
        "from maskdet.model.backends import RuntimeSpec, load_model;"
        "load_model('builtin', RuntimeSpec());"
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True).returncode == 0


def test_tests_with_verbs_of_their_own_are_where_the_verbs_look():
    places = {"training": "training", "flink": "integration"}
    offenders = [
        f"{path.relative_to(TESTS)}: mark.{mark}"
        for path in TESTS.rglob("test_*.py")
        for mark, place in places.items()
        if re.search(rf"mark\.{mark}\b", path.read_text(encoding="utf-8")) and path.relative_to(TESTS).parts[0] != place
    ]
    assert not offenders


def test_files_and_functions_stay_short():
    offenders = []
    for path in [*MODULES, *TOOLS]:
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MOST_LINES:
            offenders.append(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                docstring = ast.get_docstring(node, clean=False) or ""
                if node.end_lineno - node.lineno - docstring.count("\n") > MOST_FUNCTION_LINES:
                    offenders.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert not offenders
