"""What tests share: the demo tree, the real images where there are any, and a run of the scoring command."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from maskdet.demo.faces import DEMO_TEMPLATE, DemoTree, write_demo_tree
from maskdet.tables.layout import COMPLIANCE, SHARD_TABLES, Layout
from maskdet.tables.runs import RunRecord, read_run

LEVELS = "{site_hour: [site, date, hour], camera: [camera]}"


@dataclass(frozen=True)
class Demo:
    """A small demo tree and the truth about it."""

    folder: Path
    tree: DemoTree


@dataclass(frozen=True)
class Output:
    """What a run of `maskdet score` left."""

    code: int
    folder: Path

    @property
    def run(self) -> RunRecord:
        return read_run(Layout(str(self.folder)))

    @property
    def succeeded(self) -> bool:
        return (self.folder / "_SUCCESS").is_file()

    def table(self, name: str) -> pa.Table:
        """A table as a reader of the partitioned folder sees it, sorted; without rows if there are no files."""
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


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images; a test that needs it is skipped where there is none."""
    folder = Path(os.environ.get("MASKDET_DATA", Path(__file__).parents[2] / "shared" / "data")).absolute()
    if not (folder / "k12").is_dir():
        pytest.skip(f"no real images at {folder}; set MASKDET_DATA to their folder")
    return folder
