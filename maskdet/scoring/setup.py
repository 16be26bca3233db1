"""From settings to a run that is ready to start, with every check possible before the first image is read."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import TypeVar

from maskdet import __version__, storage
from maskdet.compliance.corrections import NO_CORRECTIONS, Corrections
from maskdet.compliance.groups import Grouping
from maskdet.compliance.rates import KnownErrors, RateRule
from maskdet.config import ScoreSettings, Section
from maskdet.cores import available_cores
from maskdet.errors import ConfigError, SourceError
from maskdet.faces.detection import describe_view
from maskdet.images.codecs import codecs_identity, resolve_codecs
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.earlier import Coverage, Growth
from maskdet.inputs.listing import ListTask, check_input, input_tasks
from maskdet.inputs.pseudonyms import Pseudonyms, without_names
from maskdet.inputs.sharding import KeyRule, Size
from maskdet.inputs.videos import refuse_unreadable, resolve_mode
from maskdet.labels import Decision
from maskdet.model.architectures import default_view
from maskdet.model.backends import RuntimeSpec
from maskdet.model.backends.choosing import choose_runtime
from maskdet.model.bundle import open_bundle, read_manifest
from maskdet.model.manifest import Manifest
from maskdet.model.safety import refuse_unsafe
from maskdet.resolved import ResolvedCompliance, ResolvedFaces, ResolvedImaging, ResolvedModel, ResolvedSettings
from maskdet.scoring.fingerprint import probability_fingerprint, scoring_fingerprint
from maskdet.scoring.known_errors import known_errors
from maskdet.scoring.scorer import ScoreOptions
from maskdet.tables.layout import Layout
from maskdet.tables.receipts import ShardJob
from maskdet.tables.reuse import RowsOfBefore
from maskdet.tables.runs import RunPlan, RunRecord, new_run_id
from maskdet.tables.snapshot import Dataset, Snapshot
from maskdet.tables.tracks import TrackJob

SectionType = TypeVar("SectionType", bound=Section)


@dataclass(frozen=True)
class Launch:
    """A checked run, from which the pipeline is built.

    Attributes:
        settings: the run's.
        tasks: the listing to do.
        manifest: the model's.
        spec: how the model runs.
        options: how shards are scored.
        limit: of a shard.
        plan: what the end of the run needs.
        job: what finishing a shard needs.
        rates: how rates are computed from the shards' counts.
        base: the tables that the run adds to, if there are any.
        growth: how it adds to them.
        pseudonyms: what replaces names of images, if they are hidden.
    """

    settings: ResolvedSettings
    tasks: Sequence[ListTask]
    manifest: Manifest
    spec: RuntimeSpec
    options: ScoreOptions
    limit: Size
    plan: RunPlan
    job: ShardJob
    rates: RateRule
    base: Snapshot | None = None
    growth: Growth = Growth(Coverage())
    pseudonyms: Pseudonyms | None = None

    @property
    def tracks(self) -> TrackJob:
        """What making tracks needs."""
        settings = self.settings
        return TrackJob(
            self.plan.layout,
            self.options.rule,
            settings.compliance.all_levels,
            settings.compliance.time_zone,
            settings.tracks,
            self.options.decision,
            settings.compliance.confidence,
            self.manifest.class_names,
            settings.tables.row_group_rows,
            settings.privacy,
        )

    def adding_to(self, plan: RunPlan, base: Snapshot | None, corrections: Corrections = NO_CORRECTIONS) -> Launch:
        """The run over an output as it was found; see :func:`maskdet.tables.runs.claim_output`.

        Args:
            plan: the run's, with what it starts from.
            base: the tables that it adds to, if there are any.
            corrections: labels that people gave to faces of the output.
        """
        if corrections:
            plan = dataclasses.replace(plan, record=plan.record.model_copy(update={"corrections": len(corrections)}))
            grouping = dataclasses.replace(self.job.grouping, corrections=corrections)
            launch = dataclasses.replace(self, job=dataclasses.replace(self.job, grouping=grouping))
            return launch._adding_to(plan, base)
        return self._adding_to(plan, base)

    def _adding_to(self, plan: RunPlan, base: Snapshot | None) -> Launch:
        if base is None:
            return dataclasses.replace(self, plan=plan)
        coverage = Coverage.of(self.tasks, plan.inputs, base.inputs)
        rows = RowsOfBefore(plan.layout, base.run_id, self.job.scored_by, self.options.decision)
        return dataclasses.replace(
            self,
            plan=plan,
            job=dataclasses.replace(self.job, reuse=rows),
            base=base,
            growth=Growth(coverage, self.settings.tables.on_gone, self.settings.source.version_column is not None),
        )


def check_run(given: ScoreSettings, now: datetime) -> Launch:
    """Check settings, input and model, without touching the output.

    Args:
        given: the settings.
        now: the run's start.

    Raises:
        MaskdetError: anything a caller can get wrong, except the output (see :func:`maskdet.tables.runs.claim_output`).
    """
    if not given.output:
        raise ConfigError("--output", "a folder or prefix", "nothing", "Say where to write the tables.")
    tasks = _checked_inputs(given)
    spec = runtime_spec(given, read_manifest(given.model.uri))
    bundle = open_bundle(given.model.uri, spec.needs)
    refuse_unsafe(bundle, spec.needs)
    manifest = bundle.manifest
    settings = resolve_settings(given, manifest, spec)
    decision = resolve_decision(settings, manifest)
    rule = KeyRule.of(settings)
    errors = known_errors(manifest, decision)
    run = _run_record(settings, manifest, spec, decision, errors, now)
    pseudonyms = Pseudonyms.of(settings.privacy)
    return Launch(
        settings=settings,
        tasks=tasks,
        manifest=manifest,
        spec=spec,
        options=score_options(settings, rule, decision),
        limit=Size(settings.packing.max_images, settings.packing.max_bytes),
        plan=_plan(settings, run, pseudonyms),
        job=ShardJob(
            layout_of(settings),
            run.fingerprint,
            rule,
            _grouping(settings, manifest.model_id),
            settings.tables.row_group_rows,
            probability_fingerprint(settings, manifest, spec),
            keeps_absent=settings.tables.on_gone == "keep",
        ),
        rates=RateRule(
            settings.compliance.confidence, manifest.class_names, errors, clustered=bool(settings.compliance.cluster)
        ),
        pseudonyms=pseudonyms,
    )


def _grouping(settings: ResolvedSettings, model: str) -> Grouping:
    compliance = settings.compliance
    return Grouping(compliance.all_levels, compliance.cluster, compliance.time_zone, model=model)


def _run_record(
    settings: ResolvedSettings,
    manifest: Manifest,
    spec: RuntimeSpec,
    decision: Decision,
    errors: KnownErrors,
    now: datetime,
) -> RunRecord:
    """The run's record as it begins."""
    return RunRecord(
        run_id=new_run_id(now),
        started_at=now,
        settings=settings.model_dump(mode="json"),
        model={
            "id": manifest.model_id,
            "fingerprint": manifest.fingerprint,
            "runtime": f"{spec.runtime_version}, {spec.precision}",
            "view": describe_view(settings.faces),
            "codecs": codecs_identity(settings.imaging.codecs),
            "classes": list(manifest.class_names),
            "decision": decision.model_dump(),
            "errors": errors._asdict(),
        },
        fingerprint=scoring_fingerprint(settings, manifest, spec, decision),
        versions=versions(),
    )


def layout_of(settings: ScoreSettings) -> Layout:
    """Where a run's files lie."""
    return Layout(storage.normalize(settings.output))


def dataset_of(settings: ScoreSettings, pseudonyms: Pseudonyms | None = None) -> Dataset:
    """What a run's tables have in common with those of other runs over the same output."""
    rule = KeyRule.of(settings)
    carried = settings.source.carry or None
    key = None if pseudonyms is None else pseudonyms.fingerprint
    return Dataset(
        key_names=rule.key_names,
        partition_by=rule.partition_by,
        timezone=rule.timezone,
        carried=carried,
        uri_key=key,
    )


def _plan(settings: ScoreSettings, run: RunRecord, pseudonyms: Pseudonyms | None) -> RunPlan:
    return RunPlan(
        layout_of(settings),
        run,
        settings.failure_budget,
        dataset_of(settings, pseudonyms),
        tuple(storage.normalize(uri) for uri in settings.input),
        max_gone_ratio=settings.tables.max_gone_ratio,
    )


def resolve_settings(given: ScoreSettings, manifest: Manifest, spec: RuntimeSpec) -> ResolvedSettings:
    """Decide what settings leave to the model, this machine and the source: face mode, backend, clusters …"""
    usual = manifest.faces or default_view(manifest.architecture)
    mode = usual if given.faces.mode == "auto" else given.faces.mode
    return _resolved(
        ResolvedSettings,
        given,
        faces=_resolved(ResolvedFaces, given.faces, mode=mode),
        imaging=_resolved(ResolvedImaging, given.imaging, codecs=resolve_codecs(given.imaging.codecs)),
        video=resolve_mode(given.video),
        model=_resolved(ResolvedModel, given.model, backend=spec.backend, precision=spec.precision),
        compliance=_resolved(
            ResolvedCompliance, given.compliance, cluster=given.cluster_keys, time_zone=given.compliance_time_zone
        ),
    )


def _resolved(kind: type[SectionType], given: Section, **chosen: object) -> SectionType:
    """A section as given, with the choices made, without fields that only the given kind has (an evaluation's)."""
    return kind(**{name: getattr(given, name) for name in kind.model_fields} | chosen)


def _checked_inputs(settings: ScoreSettings) -> list[ListTask]:
    tasks = input_tasks(settings.input, settings.source)
    refuse_unreadable(tasks, settings.video)
    if settings.source.list_columns and not any(task.kind == "image_list" for task in tasks):
        remedy = "Folders and globs take keys from source.template."
        what = "source.keys" if settings.source.keys else "source.carry"
        raise ConfigError(what, "an image list among the inputs", ", ".join(settings.input), remedy)
    output = storage.normalize(settings.output)
    for task in tasks:
        _refuse_overlap(task, output)
        try:
            storage.within_deadline(functools.partial(check_input, task, settings.source), task.uri)
        except SourceError as error:
            if settings.privacy.uri == "plain" or task.kind not in ("list", "image_list"):
                raise
            raise without_names(error) from None
    return tasks


def _refuse_overlap(task: ListTask, output: str) -> None:
    """Refuse an input and an output if one is inside the other.

    Images that a list names are compared where they are listed.
    """
    if task.kind not in ("folder", "glob"):
        return
    root = task.uri if task.kind == "folder" else storage.fixed_part(task.uri)
    inner, outer = _real(root), _real(output)
    if task.kind == "folder" and f"{outer}/".startswith(f"{inner}/"):
        # The run would list its own tables, and the next run even more of them.
        raise ConfigError("--output", f"a place outside the input {task.uri}", output, "Choose one beside it.")
    if f"{inner}/".startswith(f"{outer}/"):
        raise ConfigError("--input", f"images outside the output {output}", task.uri, "Choose an output beside them.")


def _real(uri: str) -> str:
    """A location without symbolic links."""
    return os.path.realpath(uri) if storage.is_local(uri) else uri


def runtime_spec(settings: ScoreSettings, manifest: Manifest) -> RuntimeSpec:
    """How the settings' model runs.

    Raises:
        ConfigError: the backend is unknown, or does not run the precision, or on the device.
        ModelError: ``auto`` finds none that runs the bundle.
    """
    model = settings.model
    chosen = choose_runtime(model.uri, manifest, model.backend, model.precision, model.device)
    return RuntimeSpec(
        backend=chosen.backend,
        precision=chosen.precision,
        threads=settings.scoring.inference_threads or available_cores(),
        block_images=settings.scoring.block_images,
        device=model.device,
    )


def resolve_decision(settings: ScoreSettings, manifest: Manifest) -> Decision:
    """The decision thresholds of a run: the settings', where given, else the bundle's.

    Raises:
        ConfigError: a given threshold is on the wrong side of the bundle's other one, or belongs to a class that the
            bundle does not have.
    """
    known = manifest.decision.model_dump()
    given = {name: value for name in Decision.model_fields if (value := getattr(settings.model, name)) is not None}
    merged = {**known, **given}
    unknown = [name for name in ("incorrect_from", "incorrect_odds") if name in given]
    if manifest.decision.incorrect_from is None and unknown:
        expected = f"nothing, for a model of the classes {', '.join(manifest.class_names)}"
        remedy = "Leave it out, or choose a model of three classes."
        raise ConfigError(f"model.{unknown[0]}", expected, given[unknown[0]], remedy)
    if merged["no_mask_below"] > merged["mask_from"]:
        expected = f"at most mask_from = {merged['mask_from']:g}"
        raise ConfigError("model.no_mask_below", expected, merged["no_mask_below"], "Set both thresholds.")
    return Decision(**merged)


def score_options(settings: ResolvedSettings, rule: KeyRule, decision: Decision) -> ScoreOptions:
    """How a shard is scored with the settings."""
    imaging = settings.imaging
    return ScoreOptions(
        rule=rule,
        decision=decision,
        limits=ImageLimits.of(imaging, settings.scoring.decoder_seconds),
        jpeg_draft=imaging.jpeg_draft,
        codecs=imaging.codecs,
        faces=settings.faces,
        fetch_attempts=settings.scoring.fetch_attempts,
        threads=settings.scoring.threads,
        fetch_threads=settings.scoring.fetch_threads,
    )


def versions() -> dict[str, str]:
    """Versions of everything on which a run's result or cost may depend."""
    packages = ("apache-beam", "numpy", "pillow", "pyarrow")
    found = {package: metadata.version(package) for package in packages}
    return {"maskdet": __version__, "python": platform.python_version(), **found}
