"""Read a training manifest, the part of a preparation that training needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from maskdet import storage
from maskdet.errors import SourceError, StorageError
from maskdet.preparation.records import SUCCESS
from maskdet.preparation.settings import SPLITS
from maskdet.tables.layout import read_table

COLUMNS = ("source", "image_uri", "label", "official_split", "split", "group_id", "suspicious", "flat")


def read_split(
    uri: str,
    split: str,
    sources: Collection[str] | None = None,
    *,
    official: bool = False,
    official_splits: Collection[str] = (),
    drop_suspicious: bool = False,
    drop_flat: bool = False,
) -> list[tuple[str, str, str]]:
    """The images of one split of a training manifest.

    Args:
        uri: the manifest, ``DIR/images.parquet``.
        split: ``train``, ``validation`` or ``test``.
        sources: only images of these sources; default: of all.
        official: use the sources' own splits rather than the group-disjoint ones.
        official_splits: leave out images of any other official split; default: leave out none.
        drop_suspicious: leave out images whose duplicates have the other label.
        drop_flat: leave out images that show nothing.

    Returns:
        URI, label (``mask``, ``incorrect`` or ``no_mask``) and group of each image, in the manifest's order.

    Raises:
        SourceError: the manifest is missing, unfinished or of another kind, or has no image of the split and sources.
        StorageError: it cannot be read.
    """
    if split not in SPLITS:
        raise SourceError("split", f"one of {list(SPLITS)}", split, "Correct the recipe.")
    table = read_images(uri)
    unknown = sorted(set(sources or ()) - set(table["source"].to_pylist()))
    if unknown:
        found = sorted(set(table["source"].to_pylist()))
        raise SourceError(f"manifest {uri}", f"sources among {found}", unknown, "Correct the names of the sources.")
    keep = pc.equal(table["official_split" if official else "split"], split)
    if sources is not None:
        keep = pc.and_(keep, pc.is_in(table["source"], value_set=pa.array(sorted(sources), pa.string())))
    if official_splits:
        named = pc.is_in(table["official_split"], value_set=pa.array(sorted(official_splits), pa.string()))
        keep = pc.and_(keep, pc.or_(named, pc.is_null(table["official_split"])))
    for column, drop in (("suspicious", drop_suspicious), ("flat", drop_flat)):
        if drop:
            keep = pc.and_(keep, pc.invert(table[column]))
    rows = table.filter(keep)
    if rows.num_rows == 0:
        remedy = "Name another split or other sources, or prepare with a larger share."
        raise SourceError(f"manifest {uri}", f"images of split {split!r}", "none", remedy)
    return list(zip(*(rows[name].to_pylist() for name in ("image_uri", "label", "group_id")), strict=True))


def read_images(uri: str, columns: Sequence[str] = COLUMNS) -> pa.Table:
    """The images of a training manifest, one row per image, in its order.

    Args:
        uri: the manifest, ``DIR/images.parquet``.
        columns: of :func:`maskdet.preparation.records.images_schema`.

    Raises:
        SourceError: the manifest is missing, unfinished or of another kind.
        StorageError: it cannot be read.
    """
    # Without the mark, the tables beside it may be from different runs.
    mark = storage.join(storage.parent(uri), SUCCESS)
    if not storage.exists(mark):
        raise SourceError(f"manifest {uri}", f"a finished preparation, with {mark}", "none", "Run maskdet prepare.")
    try:
        return read_table(uri, list(columns))
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"manifest {uri}: not readable: {' '.join(str(error).split())}") from error
