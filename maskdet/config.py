"""Settings of a scoring run: typed, validated at launch, and refused with the path of the key."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from maskdet.errors import ConfigError, shown
from maskdet.named_configs import find_config
from maskdet.schemas import RESERVED_NAMES
from maskdet.sections import (
    Count,
    CountOrZero,
    FailureBudget,
    KeyName,
    OpenRatio,
    PrivacySettings,
    Ratio,
    Section,
    Times,
    TrackSettings,
    VideoSettings,
)
from maskdet.templates import PathTemplate

__all__ = ["Count", "CountOrZero", "KeyName", "OpenRatio", "Ratio", "Section"]

Model = TypeVar("Model", bound=BaseModel)

CodecsName = Literal["pillow", "fast"]
FacesMode = Literal["detect", "whole"]
Precision = Literal["int8", "float32"]
Device = Literal["cpu", "cuda"]

InputKind = Annotated[
    Literal["auto", "folder", "glob", "list", "image_list"],
    # The former name of image lists.
    BeforeValidator(lambda value: "image_list" if value == "manifest" else value),
]

# Keys that every image with a capture time has, in addition to those that the source names.
DERIVED_KEYS = ("date", "hour")
# The same for groups and clusters only; a key of the source with such a name takes precedence.
GROUPED_KEYS = (*DERIVED_KEYS, "week", "month", "weekday")
# A dot: hidden files, .thumbnails, .Trash-1000, .ipynb_checkpoints, ._companions of macOS. The others are of Synology,
# QNAP, macOS archives, Windows and Linux.
DEFAULT_EXCLUDES = (
    *(".*", "@eaDir", "#recycle", "@Recycle", "@Recently-Snapshot", "#snapshot", "__MACOSX", "$RECYCLE.BIN"),
    *("System Volume Information", "lost+found"),
)
_REFERENCE = "make docs: Reference, Settings; maskdet config show NAME prints a file that has them all"
# Pydantic's error where a section is not a mapping.
_SECTION_ERRORS = ("model_type", "model_attributes_type", "dict_type")
# ValueError: text that is not UTF-8, and what YAML takes for a date that does not exist ("2026-13-45").
_YAML_ERRORS = (yaml.YAMLError, ValueError)


def _known_timezone(name: str | None) -> str | None:
    try:
        if name is not None:
            ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone of the IANA database, such as Europe/Berlin") from error
    return name


class SourceSettings(Section):
    """Where partition keys and capture times come from, and what counts as an image."""

    kind: InputKind = "auto"
    """What each input is; ``auto`` goes by its name. A ``list`` has one URI per line, an ``image_list`` has columns."""
    template: str | None = None
    """Reads keys and capture times from paths: ``{site}/{captured_at:%Y-%m-%d}/*.jpg``."""
    on_mismatch: Literal["failure_row", "refuse_run"] = "failure_row"
    """What happens to a path that does not fit the template: it becomes a failure row, or stops the run."""
    keys: tuple[KeyName, ...] = ()
    """Columns of an image list that are keys. A template names its own."""
    carry: tuple[KeyName, ...] = ()
    """More columns of an image list that the tables' rows keep unchanged. They do not say where an image is from: by
    default, neither folders nor clusters are made from them. Levels may name them."""
    uri_column: str = "uri"
    """Column of an image list with the URIs."""
    captured_at_column: str | None = None
    """Column of an image list with the capture times."""
    timezone: str = "UTC"
    """Time zone of capture times without an offset, and of the dates and hours in the tables."""
    version_column: str | None = None
    """Column of an image list that changes whenever an image does. It is trusted, so that the store need not be asked
    about each image."""
    size_column: str | None = None
    """Column of an image list with sizes in bytes, where ``version_column`` is set. Used for packing only, and never
    trusted."""
    allowed: tuple[str, ...] = ()
    """Folders and prefixes in which lists may name images, besides their own folder. ``*``: anywhere."""
    extensions: tuple[str, ...] = (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "bmp", "dib", "gif", "tif", "tiff"),
        *("heic", "heif", "hif", "avif"),
    )
    """Extensions of images. Other files in a folder count as skipped, and so do files without an extension that do not
    begin like an image. Globs and lists name their files themselves."""
    exclude: tuple[str, ...] = DEFAULT_EXCLUDES
    """Names of files and folders that folders and globs leave out at any depth, and paths below the input (``old/*``):
    thumbnails, trash, checkpoints, and companion files that programs put beside photographs."""

    _known_timezone = field_validator("timezone")(_known_timezone)

    @property
    def path_template(self) -> PathTemplate | None:
        """The compiled template, if there is one."""
        return _compiled(self.template) if self.template else None

    @property
    def list_columns(self) -> tuple[str, ...]:
        """Columns of an image list that become columns of the tables: keys and carried columns."""
        return (*self.keys, *self.carry)

    @property
    def place_names(self) -> tuple[str, ...]:
        """Keys that say where an image is from, by path or image list, in order."""
        template = self.path_template
        return (*(template.keys if template else ()), *self.keys)

    @property
    def key_names(self) -> tuple[str, ...]:
        """All keys of an image: where it is from, and what is carried."""
        return (*self.place_names, *self.carry)

    @property
    def has_captured_at(self) -> bool:
        """Whether images come with a capture time."""
        template = self.path_template
        return self.captured_at_column is not None or (template is not None and template.has_captured_at)


class PackingSettings(Section):
    """How large a shard may be."""

    max_images: Count = 1000
    """Most images in a shard."""
    max_bytes: Count = 256 * 1024 * 1024
    """Most bytes of images in a shard."""


class ImagingSettings(Section):
    """What is refused before it costs memory, and how JPEGs are decoded."""

    max_bytes: Count = 64 * 1024 * 1024
    """Larger files fail with ``too_many_bytes``."""
    max_pixels: Count = 64_000_000
    """Larger images fail with ``too_many_pixels``."""
    min_side_px: Count = 8
    """Images with a shorter side fail with ``too_few_pixels``."""
    max_side_px: Count = 65_535
    """Images with a longer side fail with ``too_many_pixels``."""
    damaged: Literal["fail", "keep"] = "fail"
    """``fail``: an image of which a part is missing or broken fails with ``corrupt_image``. ``keep``: the rest of a
    JPEG or PNG is scored, and the row says so in the column ``damaged``."""
    jpeg_draft: bool = True
    """Decode large JPEGs at a reduced size where the model's input is small: faster, with very little difference."""
    codecs: Literal["auto", CodecsName] = "auto"
    """What decodes and resizes images. ``fast`` needs the extra of that name on every worker; ``auto`` is ``fast`` if
    the machine that launches the run has it."""


class FacesSettings(Section):
    """How the faces of an image are found, and which of them are scored."""

    mode: Literal["auto", FacesMode] = "auto"
    """``detect``: find the faces. ``whole``: each image is one face, as in collections of face crops. ``auto``:
    ``whole`` for the reference networks, which were trained on whole images, and ``detect`` for others."""
    if_none: Literal["no_face", "whole"] = "no_face"
    """What an image in which no face is found counts as: ``no_face``, or one face that fills the image."""
    detector: str = "builtin"
    """The detector: the one that ships with the package, or the folder of a bundle that ``maskdet import`` made."""
    detail: Literal["fast", "balanced", "fine"] = "balanced"
    """How closely to look: ``fast`` looks at each image once; ``balanced`` again, in more detail, where there may be
    small faces; ``fine`` as long as that shows smaller ones, which finds distant faces in large photographs."""
    min_face_px: Count = 16
    """Longer side of the smallest face to score, in pixels of the image. The larger, the less detail is needed."""
    min_score: OpenRatio | None = None
    """Detections with a lower score are dropped. Large faces, and those that fill an image, need less: .245 and .175
    for .35. Default: the detector's own."""
    max_faces: Count = 200
    """Most faces per image; those with the highest scores are kept."""


class ModelSettings(Section):
    """Which model runs, and on what."""

    uri: str = "builtin"
    """A model bundle, in any storage, or ``builtin``."""
    backend: KeyName | None = None
    """The library that runs the model: ``litert``, ``tensorflow``, ``onnx``, or one that an installed package adds.
    ``auto``: the fastest on the machine that launches the run. Default: ``litert``, or the library for which the bundle
    has a file."""
    precision: Precision | None = None
    """Default: int8 where backend and bundle have it. TensorFlow and ONNX Runtime run float32 only."""
    device: Device = "cpu"
    """Where the model runs. ``cuda``: a GPU, by ONNX Runtime or TensorFlow; faces are always found on CPUs."""
    no_mask_below: Ratio | None = None
    """Faces below this probability of a mask are labelled ``no_mask``. Default: the bundle's threshold."""
    mask_from: Ratio | None = None
    """Faces from this probability on wear a mask. Between the two thresholds they are ``uncertain``. Default: the
    bundle's threshold."""
    incorrect_from: Ratio | None = None
    """From this share of the probability on, a mask counts as worn incorrectly, for models with that class. Default:
    the bundle's threshold."""
    incorrect_odds: Times | None = None
    """How many times the usual odds of a mask are needed to call a face incorrect rather than no mask; 1: no more than
    for any mask. Default: the bundle's."""

    @model_validator(mode="after")
    def _possible(self) -> ModelSettings:
        if self.no_mask_below is not None and self.mask_from is not None and self.no_mask_below > self.mask_from:
            raise ValueError(f"no_mask_below = {self.no_mask_below} lies above mask_from = {self.mask_from}")
        return self


class ScoringSettings(Section):
    """Threads, blocks and processes; none of them changes a result."""

    threads: Count | None = None
    """Threads that decode and score. Default: one per core."""
    fetch_threads: Count | None = None
    """Images read from a store concurrently. Default: 64 per core."""
    inference_threads: Count | None = None
    """How many blocks the model processes concurrently. Default: one per core."""
    block_images: Count = 8
    """Images per call of the model. Larger blocks are not faster on LiteRT, and small shards fill them less."""
    fetch_attempts: Count = 4
    """How often to try reading an image when its store answers with a transient error."""
    decoder_seconds: Annotated[float, Field(ge=1.0)] | None = 20.0
    """Formats other than JPEG and PNG, and videos, are decoded in separate processes. One that takes more processor
    time for an image or a frame, or six times as much by the clock, is ended (``decode_timeout``); one that crashes
    costs the image (``decoder_crashed``). ``null``: they are decoded in the worker's own process."""


class OutputSettings(Section):
    """How the tables are laid out."""

    partition_by: tuple[KeyName, ...] | None = None
    """Keys that become folders (``site-…/date-…``). Default: every key, then the date if there is a capture time."""
    row_group_rows: Count = 100_000
    """Rows per row group of a Parquet file."""
    on_gone: Literal["keep", "remove"] = "keep"
    """What happens to rows of images that an earlier run scored and that are gone from this run's input. Photographs
    are deleted by retention rules; their statistics stay, unless the tables should mirror the input."""
    max_gone_ratio: Ratio = 0.5
    """With ``on_gone: remove``: a run that would remove more than this share of the images covered by its input is
    refused, since a disk that is not mounted looks like a folder without images."""

    @field_validator("partition_by")
    @classmethod
    def _distinct(cls, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if keys is not None and len(set(keys)) < len(keys):
            raise ValueError(f"a key is named twice: {list(keys)}")
        return keys


class ComplianceSettings(Section):
    """Which groups the compliance tables count."""

    levels: dict[KeyName, tuple[KeyName, ...]] = {}  # noqa: RUF012  (Pydantic copies it)
    """The groups to count: each level's name, and its keys. ``date``, ``week``, ``month``, ``hour`` and ``weekday``
    come from the capture time."""
    confidence: OpenRatio = 0.95
    """Nominal coverage of the intervals."""
    cluster: tuple[KeyName, ...] | None = None
    """Keys whose values alike faces have in common, such as ``[person]``. Default: every key of the source, with
    ``date`` and ``hour`` where there is a capture time: one camera in one hour. ``[]``: no clusters."""
    time_zone: str | None = None
    """Time zone of the dates, weeks, months and hours of groups. Default: ``source.timezone``."""

    @field_validator("levels")
    @classmethod
    def _distinct(cls, levels: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if "all" in levels:
            raise ValueError("the level 'all' is the whole input as one group and always there; choose another name")
        for level, keys in levels.items():
            if len(set(keys)) < len(keys):
                raise ValueError(f"level {level!r} names a key twice: {list(keys)}")
        return levels

    _known_time_zone = field_validator("time_zone")(_known_timezone)

    @property
    def all_levels(self) -> dict[str, tuple[str, ...]]:
        """The levels, and ``all``: the whole input as one group, which every run has."""
        return {"all": (), **self.levels}


class ScoreSettings(Section):
    """The settings of a scoring run."""

    input: tuple[str, ...] = ()
    """Folders, globs, list files (.txt) or image lists (.csv, .parquet), in any storage."""
    output: str = ""
    """Folder or prefix for the tables."""
    source: SourceSettings = SourceSettings()
    packing: PackingSettings = PackingSettings()
    imaging: ImagingSettings = ImagingSettings()
    video: VideoSettings = VideoSettings()
    faces: FacesSettings = FacesSettings()
    model: ModelSettings = ModelSettings()
    scoring: ScoringSettings = ScoringSettings()
    tracks: TrackSettings = TrackSettings()
    tables: OutputSettings = OutputSettings()
    compliance: ComplianceSettings = ComplianceSettings()
    privacy: PrivacySettings = PrivacySettings()
    failure_budget: FailureBudget = FailureBudget()

    @field_validator("input", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _keys_exist(self) -> ScoreSettings:
        keys = self.source.key_names
        _refuse_bad_keys(keys)
        dated = self.source.has_captured_at
        used = {f"compliance.levels.{level}": names for level, names in self.compliance.levels.items()}
        used["compliance.cluster"] = self.compliance.cluster or ()
        grouped = (*keys, *(name for name in GROUPED_KEYS if dated))
        for place, names in used.items():
            _refuse_unknown_keys(place, names, grouped)
        _refuse_unknown_keys(
            "tables.partition_by", self.tables.partition_by or (), (*keys, *(DERIVED_KEYS if dated else ()))
        )
        return self

    @property
    def cluster_keys(self) -> tuple[str, ...]:
        """Keys whose values all faces of a cluster share; empty where there are none."""
        if self.compliance.cluster is not None:
            return self.compliance.cluster
        times = ("date", "hour") if self.source.has_captured_at else ()
        return tuple(dict.fromkeys((*self.source.place_names, *times)))

    @property
    def compliance_time_zone(self) -> str:
        """Time zone of the dates and hours of groups and clusters."""
        return self.compliance.time_zone or self.source.timezone

    @property
    def partition_by(self) -> tuple[str, ...]:
        """Keys that become folders."""
        if self.tables.partition_by is not None:
            return self.tables.partition_by
        keys = self.source.place_names
        return (*keys, "date") if self.source.has_captured_at and "date" not in keys else keys


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> PathTemplate:
    # Used once per image.
    return PathTemplate(template)


def _refuse_unknown_keys(place: str, names: Iterable[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(
                f"{place}: {name!r} is no key of the source, whose keys are {list(known)}. "
                "Name keys in source.template or source.keys; date and hour need a capture time"
            )


def _refuse_bad_keys(keys: tuple[str, ...]) -> None:
    for name in keys:
        if keys.count(name) > 1:
            raise ValueError(f"source: the key {name!r} is named twice")
        if name in RESERVED_NAMES:
            raise ValueError(f"source: the key {name!r} is the name of a column of the tables; choose another")
        if name in DERIVED_KEYS:
            raise ValueError(
                f"source: the key {name!r} is derived from the capture time; write {{captured_at:%Y-%m-%d}} or "
                "{captured_at:%H} in the template, or name an image list's column in source.captured_at_column"
            )


def load_yaml(model: type[Model], path: str | PathLike[str] | None, overrides: Sequence[str] = ()) -> Model:
    """Read settings from a YAML file and overrides.

    Args:
        model: the settings' type.
        path: a local YAML file, the name of a config of the package, or ``None`` for the defaults.
        overrides: ``"section.key=value"``, the value in YAML, applied in order.

    Raises:
        ConfigError: the file is missing, not YAML, or holds an unknown key or a bad value.
    """
    tree = _read_tree(path)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError("--set", "section.key=value", override, "Example: --set packing.max_images=500.")
        put(tree, key.strip(), _yaml_value(override, text))
    return parse_settings(model, tree, str(path) if path else "settings")


def load_settings(model: type[Model], path: str | PathLike[str] | None, given: Mapping[str, Any]) -> Model:
    """Read settings from a YAML file, and override them with a tree, key by key in each section.

    Args:
        model: the settings' type.
        path: a local YAML file, the name of a config of the package, or ``None`` for the defaults.
        given: name → value; a section is a mapping, or a section object, of which only what was set counts.

    Raises:
        ConfigError: as of :func:`load_yaml`.
    """
    tree = _read_tree(path)
    for name, value in given.items():
        section = value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value
        below = tree.get(name)
        tree[name] = {**below, **section} if isinstance(section, Mapping) and isinstance(below, dict) else section
    return parse_settings(model, tree, str(path) if path else "settings")


def parse_settings(model: type[Model], tree: Mapping[str, Any], place: str) -> Model:
    """Validate a tree of settings.

    Raises:
        ConfigError: names every unknown key and bad value by its path.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_describe(dict(problem), model) for problem in error.errors()]
        raise ConfigError(f"{place}: " + "; ".join(lines)) from error


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.key`` in a tree of settings, creating sections as needed."""
    *sections, last = key.split(".")
    for name in sections:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError("--set", f"{name} to be a section", child, f"Check the path {key}.")
        tree = child
    tree[last] = value


def _yaml_value(override: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except _YAML_ERRORS as error:
        remedy = "Put a value with {, [, * or : in quotes of its own, as in source.template='\"{site}/*.jpg\"'."
        raise ConfigError("--set", "a value in YAML", override, remedy) from error


def _read_tree(path: str | PathLike[str] | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        tree = yaml.safe_load(find_config(path).read_text(encoding="utf-8"))
    except (OSError, *_YAML_ERRORS) as error:
        raise ConfigError(f"--config {path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("--config", "sections of key: value", type(tree).__name__, f"Check {path}.")
    return tree


def _describe(problem: dict[str, Any], model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    path = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key {path!r}, {hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in _SECTION_ERRORS:
        message = "expected a section of key: value"
    if problem["type"] == "missing":
        return f"{path}: expected a value, received none; the reference of settings says what it is ({_REFERENCE})"
    text = f"{path}: {message}" if path else message
    if problem["type"] == "value_error":  # its input is the whole section
        return text
    return f"{text}, received {shown(problem['input'])}"


def _fields_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    for name in location:
        inner = model.model_fields[name].annotation if name in model.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return sorted(model.model_fields)
