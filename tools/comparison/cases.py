"""The evaluations of a comparison: for each model and data set, its images and how they relate to the model's training.

The training manifest tells that relation: how many images of the data set the model was trained on, and how many share
a group (a source photo, a near duplicate) with an image that it was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from maskdet import __version__, storage
from maskdet.config import SourceSettings
from maskdet.errors import SourceError
from maskdet.evaluation.results import METRICS_JSON
from maskdet.evaluation.settings import EvaluateSettings, TruthSettings
from maskdet.model.bundle import BUILTIN
from maskdet.model.manifest import MANIFEST_FILE
from maskdet.preparation.manifest import read_images
from maskdet.tables.layout import write_table
from tools.comparison.settings import ComparedData, ComparedModel, CompareSettings, Selection

IMAGES_TABLE = "images.parquet"
EVALUATE_CONFIG = "evaluate.yaml"
_FINISHED = "_finished"
_COLUMNS = ("image_uri", "label", "group_id", "content_sha256", "source", "official_split", "split")


class Kind(StrEnum):
    """How images relate to a model's training, from the most flattering to the most informative."""

    TRAINED = "trained"
    SHARED = "shared"
    SAME_SOURCE = "same_source"
    DISJOINT = "disjoint"
    EXTERNAL = "external"

    @property
    def words(self) -> str:
        """What tables call it."""
        return _WORDS[self]


_WORDS = {
    Kind.TRAINED: "holds training images",
    Kind.SHARED: "shares groups with training",
    Kind.SAME_SOURCE: "same source, groups unknown",
    Kind.DISJOINT: "same source, other groups",
    Kind.EXTERNAL: "unseen source",
}


@dataclass(frozen=True)
class Relation:
    """How a data set relates to a model's training.

    Attributes:
        kind: the kind of relation.
        images: number of images in the data set; this and the counts below are ``None`` without a training manifest.
        trained: how many of these the model was trained on.
        shared: how many of these share a group with an image that it was trained on, including those themselves.
    """

    kind: Kind
    images: int | None = None
    trained: int | None = None
    shared: int | None = None


@dataclass(frozen=True)
class Case:
    """A model on a data set.

    Attributes:
        model: name of the model.
        data: name of the data set.
        relation: how the data set relates to the model's training.
        settings: settings of the evaluation; ``None`` if it cannot be made here.
        images: images of the data set, with ``image_uri``, ``label``, ``group_id`` and ``content_sha256``; ``None`` if
            the data set is an input that has to be listed.
        note: why there is no evaluation.
    """

    model: str
    data: str
    relation: Relation
    settings: EvaluateSettings | None
    images: pa.Table | None
    note: str = ""


def plan_cases(settings: CompareSettings) -> list[Case]:
    """Every evaluation of a comparison, data set by data set, in the settings' order.

    Raises:
        SourceError: a training manifest is missing or unfinished, or a selection holds no images of one class.
        StorageError: a location cannot be read.
    """
    uris = {data.manifest for data in settings.data.values() if data.manifest}
    manifests = {uri: read_images(uri, _COLUMNS) for uri in sorted(uris)}
    _check_sources(settings, manifests)
    cases = []
    for data_name, data in settings.data.items():
        for name, model in settings.models.items():
            if not (data.external_only and data.source in model.trained_on):
                cases.append(_case(settings, (name, data_name), *relate(data_name, data, model, manifests)))
    return cases


def _check_sources(settings: CompareSettings, manifests: Mapping[str, pa.Table]) -> None:
    """Refuse unknown sources: the images of a misspelt one would be taken for unseen."""
    known = {source for table in manifests.values() for source in table["source"].to_pylist()}
    for place, names in (
        *((f"models.{name}.trained_on", model.trained_on) for name, model in settings.models.items()),
        *((f"data.{name}.source", [data.source]) for name, data in settings.data.items() if data.manifest),
    ):
        if manifests and (unknown := sorted(set(names) - known)):
            raise SourceError(place, f"sources of a manifest, {sorted(known)}", unknown, "Correct the names.")


def relate(
    name: str, data: ComparedData, model: ComparedModel, manifests: Mapping[str, pa.Table]
) -> tuple[pa.Table | None, Relation]:
    """The images of a data set that a model is measured on, and how they relate to its training.

    Args:
        name: name of the data set, for messages.
        data: its settings.
        model: what it was trained on.
        manifests: URI → images of a training manifest.

    Raises:
        SourceError: a class has no image.
    """
    own = data.source in model.trained_on
    if data.manifest is None:
        return None, Relation(Kind.SAME_SOURCE if own else Kind.EXTERNAL)
    manifest = manifests[data.manifest]
    images = select(manifest, data.source, data.part)
    trained = select_trained(manifest, model)
    uris, groups = (pc.unique(trained[column]) for column in ("image_uri", "group_id"))
    if data.drop_trained_groups:
        images = images.filter(pc.invert(pc.is_in(images["group_id"], value_set=groups)))
    _check_classes(name, images)
    counts = [
        pc.sum(pc.is_in(images[column], value_set=values)).as_py()
        for column, values in (("image_uri", uris), ("group_id", groups))
    ]
    return images.select(list(_COLUMNS[:4])), Relation(_kind_of(own, *counts), images.num_rows, *counts)


def _kind_of(own: bool, trained: int, shared: int) -> Kind:
    if trained:
        return Kind.TRAINED
    if not own:
        return Kind.EXTERNAL  # a few shared groups, which the counts show, do not make two sources one
    return Kind.SHARED if shared else Kind.DISJOINT


def _check_classes(name: str, images: pa.Table) -> None:
    found = set(images["label"].to_pylist())
    if len(found) < 2:
        remedy = "Correct its source and part, or leave out drop_trained_groups."
        raise SourceError(f"data.{name}", "images of both classes", sorted(found), remedy)


def select(manifest: pa.Table, source: str, part: Selection) -> pa.Table:
    """Rows of a part of a source."""
    keep = pc.equal(manifest["source"], source)
    for column, splits in (("official_split", part.official_split), ("split", part.split)):
        if splits is not None:
            keep = pc.and_(keep, pc.is_in(manifest[column], value_set=pa.array(splits, pa.string())))
    return manifest.filter(keep)


def select_trained(manifest: pa.Table, model: ComparedModel) -> pa.Table:
    """Rows that a model was trained on. As in recipes, images without an official split are always included."""
    parts = []
    for source, part in model.trained_on.items():
        parts.append(select(manifest, source, part))
        if part.official_split is not None:
            unsplit = manifest.filter(pc.is_null(manifest["official_split"]))
            parts.append(select(unsplit, source, part.model_copy(update={"official_split": None})))
    return pa.concat_tables(parts) if parts else manifest.slice(0, 0)


def write_inputs(case: Case) -> None:
    """Write the inputs of an evaluation: its settings, and its part of the training manifest as a separate manifest.

    Raises:
        StorageError: the output cannot be written.
    """
    settings = made(case)
    if case.images is not None:
        write_table(storage.join(settings.output, IMAGES_TABLE), case.images, settings.tables.row_group_rows)
    text = yaml.safe_dump(settings.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)
    storage.write_bytes(storage.join(settings.output, EVALUATE_CONFIG), text.encode())


def made(case: Case) -> EvaluateSettings:
    """The settings of a case that can be evaluated here."""
    assert case.settings is not None, f"{case.model} on {case.data}: {case.note}"
    return case.settings


def finished_key(case: Case, fingerprint: str) -> str | None:
    """A hash over all that an evaluation depends on; ``None`` for an input, whose images are not known until listed.

    Args:
        case: model and images.
        fingerprint: fingerprint of model and scoring.
    """
    if case.images is None:
        return None
    digest = hashlib.sha256(f"{__version__}\t{fingerprint}\t{made(case).model_dump_json()}\n".encode())
    for row in zip(*(column.to_pylist() for column in case.images.columns), strict=True):
        digest.update("\t".join(row).encode() + b"\n")
    return digest.hexdigest()


def is_finished(case: Case, key: str | None) -> bool:
    """Whether the output holds a finished evaluation with this key.

    Raises:
        StorageError: the output cannot be read.
    """
    mark, results = (storage.join(made(case).output, name) for name in (_FINISHED, METRICS_JSON))
    if key is None or not storage.exists(mark) or not storage.exists(results):
        return False
    return storage.read_bytes(mark).decode() == key


def mark_finished(case: Case, key: str | None) -> None:
    """Record that an evaluation is finished; ``None`` removes that mark.

    Raises:
        StorageError: the output cannot be written.
    """
    mark = storage.join(made(case).output, _FINISHED)
    if key is None:
        storage.delete([mark])
    else:
        storage.write_bytes(mark, key.encode())


def is_made(model: ComparedModel) -> bool:
    """Whether the model's bundle exists."""
    return model.uri == BUILTIN or storage.exists(storage.join(storage.normalize(model.uri), MANIFEST_FILE))


def not_made(model: ComparedModel) -> str:
    """Why a model has no figures."""
    return f"not made here: {model.command or model.uri}"


def _case(
    settings: CompareSettings,
    names: tuple[str, str],
    images: pa.Table | None,
    relation: Relation,
) -> Case:
    model, data = settings.models[names[0]], settings.data[names[1]]
    if model.optional and not is_made(model):
        return Case(*names, relation, None, images, not_made(model))
    output = storage.join(storage.normalize(settings.output), *names)
    if images is None:
        place = {"input": data.input, "source": SourceSettings(uri_column=data.uri_column), "truth": data.truth}
        groups = data.group_column
    else:
        place = {
            "input": (storage.join(output, IMAGES_TABLE),),
            # The list lies among the results, away from the images, and is our own, so it may name any.
            "source": SourceSettings(uri_column="image_uri", allowed=("*",)),
            "truth": TruthSettings(column="label"),
        }
        groups = "group_id"
    evaluation = EvaluateSettings.model_validate(
        {**place, "output": output, "model": model.runs_as, "intervals": settings.intervals(groups), "baselines": True}
    )
    return Case(*names, relation, evaluation, images)
