"""Measure labelled images: read, validate with scoring's decoder, hash. It uses threads, not Beam."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from PIL import Image

from maskdet import storage
from maskdet.errors import FailureCode, ImageFault, SourceError
from maskdet.images.preprocessing import FORMATS, ImageLimits, prepare_image
from maskdet.inputs.references import ImageRef
from maskdet.preparation import hashing
from maskdet.preparation.records import MeasuredBatch, SourceBatch, failures_schema, measured_schema
from maskdet.preparation.settings import LABELS, SPLITS, LabelledSource
from maskdet.scoring.fetching import Fetcher, reading_threads

Name = TypeVar("Name", bound=str)
Row = dict[str, Any]

# Sum of the luminance table of ITU-T T.81, annex K.1, which the IJG library scales by quality.
_STANDARD_LUMINANCE_SUM = 3688


def measure_batch(
    batch: SourceBatch,
    source: LabelledSource,
    limits: ImageLimits,
    *,
    read: Callable[[str], bytes] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> MeasuredBatch:
    """Measure every image of a batch.

    Args:
        batch: images of one source.
        source: its settings, with absolute locations.
        limits: byte and pixel limits.
        read: reads a URI; default: the storage's.
        sleep: waits before another try.

    Returns:
        One row per image, measured or failed, in the order of the batch. Rows depend on images and settings alone.

    Raises:
        SourceError: the group manifest cannot be read.
    """
    groups = _groups_of(source)
    fetcher = Fetcher(limits.max_bytes, read=read, sleep=sleep)

    def measure(ref: ImageRef) -> Row | ImageFault:
        try:
            known = {**_told_by_path(ref, batch.root, source), "given_group": groups.get(ref.uri)}
            data = fetcher.fetch(ref)
            return {"source": batch.source, "image_uri": ref.uri, **known, **_measured(data, limits)}
        except ImageFault as fault:
            return fault

    local = not batch.refs or storage.is_local(batch.refs[0].uri)
    with ThreadPoolExecutor(reading_threads(local=local)) as pool:
        outcomes = list(pool.map(measure, batch.refs))
    rows = [outcome for outcome in outcomes if not isinstance(outcome, ImageFault)]
    failures = [
        {
            **{"source": batch.source, "image_uri": ref.uri, "stage": fault.code.stage.value},
            **{"code": fault.code.value, "message": fault.message, "attempts": fault.attempts},
        }
        for ref, fault in zip(batch.refs, outcomes, strict=True)
        if isinstance(fault, ImageFault)
    ]
    return MeasuredBatch(
        pa.Table.from_pylist(rows, schema=measured_schema()),
        pa.Table.from_pylist(failures, schema=failures_schema()),
    )


def read_groups(source: LabelledSource) -> dict[str, str]:
    """The group of each image that a source's group manifest names, by absolute URI.

    Raises:
        SourceError: the manifest lacks a column or is damaged.
        StorageError: it cannot be read.
    """
    if source.group_manifest is None:
        return {}
    uri, columns = source.group_manifest, (source.group_path_column, source.group_column)
    with storage.open_binary(uri) as stream:
        try:
            table = pq.read_table(stream) if uri.lower().endswith(".parquet") else _read_csv(stream, columns)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"group manifest {uri}: not readable: {' '.join(str(error).split())}") from error
    for name in columns:
        if name not in table.column_names:
            raise SourceError(
                f"group manifest {uri}", f"a column {name!r}", table.column_names, "Name it in the config."
            )
    rows = zip(*(table[name].to_pylist() for name in columns), strict=True)
    root = source.group_root or storage.parent(uri)
    return {_under(root, str(path)): str(group) for path, group in rows if path and group not in (None, "")}


def estimate_jpeg_quality(luminance: list[int]) -> int:
    """The quality setting of the IJG library for a luminance quantisation table of 64 entries.

    The library scales its standard table by 5000/q percent below 50 and by 200 − 2 q percent above; the ratio of the
    sums undoes that, exactly for qualities from 20 to 99 (below, entries cut at 255 make it too high). For tables of
    other encoders, it is the quality that is equally coarse on average.
    """
    percent = 100 * sum(luminance) / _STANDARD_LUMINANCE_SUM
    quality = 5000 / percent if percent > 100 else (200 - percent) / 2
    return max(1, min(100, round(quality)))


def _measured(data: bytes, limits: ImageLimits) -> Row:
    image = prepare_image(data, hashing.SIDE_PX, hashing.SIDE_PX, limits)
    header = Image.open(io.BytesIO(data), formats=FORMATS)
    tables = getattr(header, "quantization", None)
    return {
        "content_sha256": hashlib.sha256(data).hexdigest(),
        "phash": hashing.perceptual_hash(image.pixels),
        "thumbnail": hashing.thumbnail(image.pixels).tobytes(),
        "width_px": image.width_px,
        "height_px": image.height_px,
        "size_bytes": len(data),
        "format": "JPEG" if header.format == "MPO" else header.format,
        "jpeg_quality": estimate_jpeg_quality(list(tables[0])) if tables and 0 in tables else None,
    }


def _told_by_path(ref: ImageRef, root: str, source: LabelledSource) -> Row:
    """Label, official split and name group, by the image's place or manifest row."""
    if ref.problem is not None:
        code, message = ref.problem
        raise ImageFault(FailureCode(code), message, attempts=0)
    label = source.label or _named(ref, root, source, source.label_column, source.labels, LABELS)
    if label is None:
        raise ImageFault(FailureCode.PATH_MISMATCH, f"no folder below the input is one of {sorted(source.labels)}", 0)
    split = source.split or _named(ref, root, source, source.split_column, source.splits, SPLITS)
    pattern = re.compile(source.group_pattern) if source.group_pattern else None
    match = pattern.search(ref.uri.rsplit("/", 1)[-1]) if pattern else None
    return {"label": label, "official_split": split, "name_group": match[1] if match else None}


def _named(
    ref: ImageRef,
    root: str,
    source: LabelledSource,
    column: str | None,
    names: Mapping[str, Name],
    values: tuple[Name, ...],
) -> Name | None:
    """What an image list's column or the folders of a path say; ``None`` if they say nothing."""
    if column is not None:
        text = ref.keys[source.listing.keys.index(column)]
        known: dict[str, Name] = {**dict(zip(values, values, strict=True)), **names}
        found = known.get(text or "")
        if found is None and (text or column == source.label_column):
            expected = sorted(known)
            raise ImageFault(FailureCode.BAD_MANIFEST_ROW, f"{column} is {text!r}, none of {expected}", 0)
        return found
    folders = ref.uri.removeprefix(root).split("/")[:-1]
    told = sorted({str(names[folder]) for folder in folders if folder in names})
    if len(told) > 1:
        raise ImageFault(FailureCode.PATH_MISMATCH, f"the folders of the path say both {' and '.join(told)}", 0)
    return next((names[folder] for folder in folders if folder in names), None)


def _groups_of(source: LabelledSource) -> dict[str, str]:
    if source.group_manifest is None:
        return {}
    # By their JSON, since settings with dictionaries cannot be hashed.
    return _cached_groups(source.model_dump_json(), storage.stat(source.group_manifest).version)


@functools.lru_cache(maxsize=8)
def _cached_groups(source_json: str, _version: str) -> dict[str, str]:
    return read_groups(LabelledSource.model_validate_json(source_json))


def _read_csv(stream: Any, columns: tuple[str, ...]) -> pa.Table:
    # As text: a group called 007 is not group 7.
    options = pa_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
    return pa_csv.read_csv(stream, convert_options=options)


def _under(root: str, path: str) -> str:
    absolute = path.startswith("/") or not storage.is_local(path)
    return storage.normalize(path if absolute else storage.join(root, path))
