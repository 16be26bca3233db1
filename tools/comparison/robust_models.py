"""Measures the models of a comparison on views of faces, except where an earlier run has measured the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from maskdet import __version__, storage
from maskdet.errors import NotFoundError
from maskdet.evaluation.intervals import Estimate
from maskdet.evaluation.settings import EvaluateSettings
from maskdet.model.backends import load_model
from maskdet.model.bundle import read_manifest
from maskdet.preparation.manifest import read_images
from maskdet.scoring.setup import resolve_decision, runtime_spec
from tools.comparison.cases import is_made, not_made, select, select_trained
from tools.comparison.robustness import ViewRow, first_of_each_class, measure, rows_of, views_of
from tools.comparison.settings import ComparedModel, CompareSettings, RobustnessSettings
from tools.comparison.tables import Robustness

_FOLDER = "robustness"
_COLUMNS = ("image_uri", "label", "content_sha256", "source", "official_split", "split")


class _Faces(NamedTuple):
    """Images to measure on; ``table`` has the columns ``_COLUMNS``."""

    table: pa.Table
    manifests: Mapping[str, pa.Table]


def run_robustness(settings: CompareSettings) -> Robustness | None:
    """Measure the models on views of faces; figures that an earlier run measured on the same are kept.

    Returns:
        The figures, or ``None`` if the settings ask for none.

    Raises:
        ModelError: a model's bundle is missing, and it is not optional.
        SourceError: a training manifest is missing, or an image cannot be decoded.
        StorageError: something cannot be read or written.
    """
    wanted = settings.robustness
    if wanted is None:
        return None
    faces = _faces(settings, wanted)
    names = wanted.models or tuple(settings.models)
    made = [name for name in names if not settings.models[name].optional or is_made(settings.models[name])]
    keys = {name: _key(settings, wanted, settings.models[name], faces) for name in made}
    rows = {name: found for name in made if (found := _kept(settings, name, keys[name])) is not None}
    if missing := [name for name in made if name not in rows]:
        rows |= _measured(settings, wanted, missing, faces)
        for name in missing:
            content = {"key": keys[name], "rows": [_as_tree(row) for row in rows[name]]}
            storage.write_bytes(_place(settings, name), json.dumps(content, indent=1).encode())
    return Robustness(
        titles=tuple(settings.data[name].title for name in wanted.data),
        images=faces.table.num_rows,
        trained={name: _trained(settings.models[name], faces) for name in made},
        rows={name: rows[name] for name in made},
        notes={name: not_made(settings.models[name]) for name in names if name not in made},
    )


def _faces(settings: CompareSettings, wanted: RobustnessSettings) -> _Faces:
    chosen = [settings.data[name] for name in wanted.data]
    manifests = {uri: read_images(uri, _COLUMNS) for uri in sorted({data.manifest for data in chosen if data.manifest})}
    parts = [select(manifests[data.manifest], data.source, data.part) for data in chosen if data.manifest]
    table = pa.concat_tables(parts)
    place = {uri: row for row, uri in enumerate(table["image_uri"].to_pylist())}  # each image only once
    table = table.take(pa.array(sorted(place.values()), pa.int64()))
    labels, contents = table["label"].to_pylist(), table["content_sha256"].to_pylist()
    keep = first_of_each_class(labels, contents, wanted.max_images_per_class)
    return _Faces(table.take(pa.array(keep, pa.int64())), manifests)


def _trained(model: ComparedModel, faces: _Faces) -> int:
    uris = {
        uri for manifest in faces.manifests.values() for uri in select_trained(manifest, model)["image_uri"].to_pylist()
    }
    return sum(uri in uris for uri in faces.table["image_uri"].to_pylist())


def _measured(
    settings: CompareSettings, wanted: RobustnessSettings, names: list[str], faces: _Faces
) -> dict[str, list[ViewRow]]:
    views = views_of(wanted)
    runs = [_run_settings(settings.models[name]) for name in names]
    models = [load_model(run.model.uri, runtime_spec(run, read_manifest(run.model.uri))) for run in runs]
    found = measure(models, faces.table["image_uri"].to_pylist(), views)
    truth = np.array([label == "mask" for label in faces.table["label"].to_pylist()], np.bool_)
    rules = [
        (one.manifest.class_names, resolve_decision(run, one.manifest)) for run, one in zip(runs, models, strict=True)
    ]
    return {
        name: rows_of(values, views, truth, *rule, settings.confidence)
        for name, values, rule in zip(names, found, rules, strict=True)
    }


def _run_settings(model: ComparedModel) -> EvaluateSettings:
    return EvaluateSettings(model=model.runs_as)


def _key(settings: CompareSettings, wanted: RobustnessSettings, model: ComparedModel, faces: _Faces) -> str:
    """A hash over all that a model's figures depend on."""
    run = _run_settings(model)
    manifest = read_manifest(model.uri)
    spec = runtime_spec(run, manifest)
    content = [
        __version__,
        f"pillow {metadata.version('pillow')}",
        manifest.fingerprint,
        spec.output_name,
        spec.runtime_version,
        resolve_decision(run, manifest).model_dump(mode="json"),
        settings.confidence,
        ViewRow._fields,
        [vars(view) for view in views_of(wanted)],
        [faces.table[name].to_pylist() for name in ("label", "content_sha256")],
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _place(settings: CompareSettings, name: str) -> str:
    return storage.join(storage.normalize(settings.output), _FOLDER, f"{name}.json")


def _kept(settings: CompareSettings, name: str, key: str) -> list[ViewRow] | None:
    try:
        content = json.loads(storage.read_bytes(_place(settings, name)))
    except NotFoundError:
        return None
    return [_as_row(tree) for tree in content["rows"]] if content["key"] == key else None


def _as_tree(row: ViewRow) -> dict[str, Any]:
    return row._asdict() | {name: vars(getattr(row, name)) for name in ("accuracy", "balanced_accuracy")}


def _as_row(tree: Mapping[str, Any]) -> ViewRow:
    estimates = {name: Estimate(**tree[name]) for name in ("accuracy", "balanced_accuracy")}
    return ViewRow(**{**tree, **estimates})
