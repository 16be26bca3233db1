"""Fixtures for all tests: the demo tree, real images where there are any, and runs of the scoring command."""

from __future__ import annotations

import functools
import gc
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from apache_beam.typehints.decorators import IOTypeHints

from maskdet.demo.faces import DEMO_TEMPLATE, DemoTree, write_demo_tree
from maskdet.model import litert_graph
from maskdet.tables.layout import COMPLIANCE, SHARD_TABLES, Layout
from maskdet.tables.runs import RunRecord, read_run

LONGEST = (
    "tests/integration/",
    "tests/model/",
    "tests/dataflow/",
    "tests/test_documents.py",
    "tests/cli/",
    "tests/test_",
)
TENSORFLOW_GROUPS = ("models", "tensorflow")
"""Groups of tests that make, fit or convert networks in the worker's own process, which imports TensorFlow once."""
LEVELS = "{site_hour: [site, date, hour], camera: [camera]}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave tests that load TensorFlow to `make test-training`, and run the slowest first.

    Workers then finish at about the same time.
    """
    for item in items:
        if any(mark.args[0] in TENSORFLOW_GROUPS for mark in item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.training)
    items.sort(key=lambda item: next((rank for rank, name in enumerate(LONGEST) if item.nodeid.startswith(name)), 99))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Let one worker run all tests of a file, and of all files in its group, so that what they share is made once.

    xdist's own groups, ``--dist loadgroup``, have no effect with pytest 9.2, which keeps a test's id elsewhere.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.split("::", 1)[0])

    config.option.loadscopereorder = False
    return ByFile(config, log)


@functools.cache
def group_of(file: str) -> str:
    """The group that a test file names, or the file itself."""
    named = re.search(r'xdist_group\("(\w+)"\)', Path(__file__).parents[1].joinpath(file).read_text(encoding="utf-8"))
    return named[1] if named else file


def pytest_collection_finish() -> None:
    """Exclude all that was imported, a million objects, from later garbage collections."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def remembered() -> Iterator[None]:
    """Cache what each of some hundred runs in this process would compute again: package versions, a faster graph.

    Beam does not record in which lines of code a type was declared, either.
    """
    version, lean = functools.cache(metadata.version), functools.lru_cache(maxsize=8)(litert_graph.lean)
    with (
        mock.patch.object(metadata, "version", version),
        mock.patch.object(litert_graph, "lean", lean),
        mock.patch.object(IOTypeHints, "_make_origin", return_value=[]),
    ):
        yield


@dataclass(frozen=True)
class Demo:
    """A small demo tree, and what it holds."""

    folder: Path
    tree: DemoTree


@dataclass(frozen=True)
class Output:
    """The output of a run of `maskdet score`."""

    code: int
    folder: Path

    @property
    def run(self) -> RunRecord:
        return read_run(Layout(str(self.folder)))

    @property
    def succeeded(self) -> bool:
        return (self.folder / "_SUCCESS").is_file()

    def table(self, name: str) -> pa.Table:
        """A table as a reader of the partitioned folder sees it, sorted; empty if there are no files."""
        if not list((self.folder / name).rglob("*.parquet")):
            return pa.table({"image_uri": pa.array([], pa.string())})
        table = ds.dataset(self.folder / name, format="parquet", partitioning="hive").to_table()
        return table.sort_by([(column, "ascending") for column in _sort_columns(table)])

    def contents(self) -> dict[str, bytes]:
        """Every table, sorted, as bytes."""
        return {name: _as_bytes(self.table(name)) for name in (*SHARD_TABLES, COMPLIANCE)}


def _sort_columns(table: pa.Table) -> list[str]:
    first = [name for name in ("image_uri", "face_index") if name in table.column_names]
    return first or [name for name in table.column_names if table[name].type in (pa.string(), pa.date32(), pa.int32())]


def _as_bytes(table: pa.Table) -> bytes:
    # Row groups and files differ between runs by design; the rows must not.
    plain = table.combine_chunks().replace_schema_metadata(None)
    plain = plain.cast(pa.schema([(field.name, _plain(field.type)) for field in plain.schema]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_table(plain)
    return sink.getvalue().to_pybytes()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo tree, written once; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("demo")
    return Demo(folder, write_demo_tree(folder, sites=2, cameras_per_site=1, days=2, hours=(8, 19), images_per_hour=4))


@pytest.fixture(scope="session")
def score() -> Callable[..., Output]:
    """Run `maskdet score` here: ``score(output, input, …, flags=(…))``, by default with the demo's template."""
    from maskdet.cli.score import main

    def run(
        output: Path,
        *inputs: object,
        flags: tuple[str, ...] = (),
        template: str | None = DEMO_TEMPLATE,
        faces: str = "whole",
    ) -> Output:
        keyed = () if template is None else ("--template", template, "--set", f"compliance.levels={LEVELS}")
        where = ("--output", str(output), "--faces", faces)
        return Output(main(["--input", *map(str, inputs), *where, *keyed, *flags]), output)

    return run


@pytest.fixture(scope="module")
def first_run(score: Callable[..., Output], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Output]:
    """``first_run(output, input, …, flags=(…))``: a copy of what ``score`` leaves; the run is made once per module.

    Input files must not change between calls with the same names; :func:`put_back` restores them.
    """
    made: dict[tuple[object, ...], Output] = {}

    def run(output: Path, *inputs: object, flags: tuple[str, ...] = ()) -> Output:
        if (*inputs, flags) not in made:
            made[*inputs, flags] = score(tmp_path_factory.mktemp("first") / "tables", *inputs, flags=flags)
        first = made[*inputs, flags]
        subprocess.run(["cp", "-a", str(first.folder), str(output)], check=True)  # with its hard links
        return Output(first.code, output)

    return run


@pytest.fixture(scope="module")
def put_back(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Restore the demo's images in the folder in which this module's tests change them; returns the folder."""
    folder = tmp_path_factory.mktemp("photos") / "photos"

    def put() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(demo.folder, folder))

    return put


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images; a test that needs it is skipped where it is missing."""
    folder = Path(os.environ.get("MASKDET_DATA", Path(__file__).parents[2] / "shared" / "data")).absolute()
    if not (folder / "k12").is_dir():
        pytest.skip(f"no real images at {folder}; set MASKDET_DATA to their folder")
    return folder
