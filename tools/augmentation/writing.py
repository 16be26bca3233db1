"""Writes composites as files, with a training manifest of their own."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from maskdet import storage
from maskdet.preparation.records import IMAGES, SUCCESS
from maskdet.tables.layout import write_table
from tools.augmentation.making import Composite
from tools.augmentation.settings import ComposeSettings

_ROW_GROUP_ROWS = 100_000


def write_composites(composites: Iterable[Composite], settings: ComposeSettings) -> dict[str, int]:
    """Write every composite to ``<output>/<label>/<kind>_<number>.jpg``, and a table of them.

    The table, ``<output>/images.parquet``, has the columns that training needs in a manifest; ``source`` is the kind.
    Files of earlier runs are deleted.

    Returns:
        How many of each kind.

    Raises:
        StorageError: the output cannot be written.
    """
    output = storage.normalize(settings.output)
    storage.delete([storage.join(output, SUCCESS)])
    earlier = {file.uri for label in ("mask", "no_mask") for file in _files(storage.join(output, label))}
    rows, counts = [], dict.fromkeys(settings.kinds.model_dump(), 0)
    for composite in composites:
        name = f"{composite.kind}_{counts[composite.kind]:05d}.jpg"
        counts[composite.kind] += 1
        uri = storage.join(output, composite.label, name)
        storage.write_bytes(uri, composite.data)
        rows.append({"source": composite.kind, "image_uri": uri, "label": composite.label, "group_id": composite.group})
    storage.delete(earlier - {row["image_uri"] for row in rows})
    digest = write_table(storage.join(output, IMAGES), _table(rows, settings.split), _ROW_GROUP_ROWS)
    storage.write_bytes(storage.join(output, SUCCESS), f"{digest}\n".encode())
    return counts


def _files(folder: str) -> Iterable[storage.StoredFile]:
    return storage.list_folder(folder) if storage.is_local_folder(folder) else ()


def _table(rows: list[dict[str, str]], split: str) -> pa.Table:
    names = ("source", "image_uri", "label", "group_id")
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    fixed = {
        "official_split": pa.nulls(len(rows), pa.string()),
        "split": pa.array([split] * len(rows), pa.string()),
        "suspicious": pa.array([False] * len(rows), pa.bool_()),
        "flat": pa.array([False] * len(rows), pa.bool_()),
    }
    return pa.table(columns | fixed)
