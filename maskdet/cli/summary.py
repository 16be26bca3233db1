"""Runs and tables in words, for people at a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from maskdet import storage
from maskdet.config import ScoreSettings
from maskdet.errors import OutputError, StorageError
from maskdet.inputs.earlier import ABSENT, ADDED, CHANGED, DISPLACED, GONE, LOST, OUTSIDE, REMOVED, UNCHANGED
from maskdet.inputs.references import ImageRef
from maskdet.labels import INCORRECT, MASK, UNCERTAIN
from maskdet.sections import VideoSettings
from maskdet.tables.delta_mark import runs_behind
from maskdet.tables.layout import COMPLIANCE, SHARD_TABLES, TRACK_RATES, TRACKS, Layout, read_table
from maskdet.tables.runs import RunRecord
from maskdet.tables.status import RunStatus, read_status
from maskdet.tables.videos import VideoCounts
from maskdet.video.reading import EXTRA, is_installed

if TYPE_CHECKING:
    from maskdet.scoring.dry_run import DryRun

_PROBLEMS_SHOWN = 3
_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_NAIVE = "wilson, naive"
_WAYS = (
    "to quote: the interval that the table recommends. cluster: faces of a cluster are alike; corrected, melded: of "
    "the rate freed of the model's errors; naive: as if all faces were independent"
)


def describe_run(run: RunRecord, layout: Layout) -> str:
    """A run's summary: how it ended, every image, faces by label, speed, and where the tables are."""
    images = run.images
    head = f"run {run.run_id}: {run.status.replace('_', ' ')}" + (f" — {run.reason}" if run.reason else "")
    if run.status in ("running", "failed", "interrupted", "superseded"):
        return f"{head}\n  tables    not complete; finished shards are in {layout.root}"
    if run.pruned_before is not None:
        faces = [*_detail("faces", run.faces), *_models(run)]
        return "\n".join([head, *_pruned(run), *faces, *_detail("tracks", run.tracks)])
    if run.recounted:
        faces = [*_detail("faces", run.faces), *_mask_rate(run), *_models(run), *_corrections(run), *_groups(run)]
        return "\n".join([head, *faces, *_detail("tracks", run.tracks)])
    lines = [
        head,
        f"  images    {images.listed:,} listed = {images.scored:,} scored + {images.no_face:,} no face "
        f"+ {images.failed:,} failed + {images.skipped:,} skipped",
        *_videos(run.videos),
        *_detail("failed", run.failed_by_code),
        *_detail("skipped", run.skipped_by_reason),
        *_skipped_videos(run),
        *_data_set(run),
        *_detail("faces", run.faces),
        *_mask_rate(run),
        *_models(run),
        *_corrections(run),
        *_groups(run),
        *_detail("tracks", run.tracks),
        f"  shards    {run.shards.get('total', 0):,}: {run.shards.get('scored', 0):,} scored, "
        f"{run.shards.get('kept', 0):,} kept from earlier runs",
        f"  model     {run.model['id']} on {run.model['runtime']}; {_thresholds(run)}",
        *([f"  view      {run.model['view']}"] if "view" in run.model else []),
        f"  time      {_speed(run)}",
        f"  tables    {layout.root}/{{{','.join(_tables(run))}}}",
    ]
    return "\n".join(lines)


def describe_output(run: RunRecord, layout: Layout) -> str:
    """A run's summary, with the reminder of Delta tables that lag behind, which reads the output."""
    return "\n".join([describe_run(run, layout), *describe_delta(layout)])


def describe_delta(layout: Layout) -> list[str]:
    """The reminder to bring Delta tables in line with the tables, where there are Delta tables and they lag behind."""
    behind = runs_behind(layout)
    if not behind:
        return []
    what = "show the tables of the run before"
    if behind > 1:
        what = f"are {behind} runs behind, and name files that are gone"
    return [f"  delta     Delta tables {what}: maskdet delta {layout.root}"]


def _pruned(run: RunRecord) -> list[str]:
    removed = run.changes.get(REMOVED, 0)
    left = f"{run.dataset.listed:,} images{_and_videos(run)} in {run.shards.get('total', 0):,} shards are left"
    undated = f", {run.undated:,} of them without a capture time" if run.undated else ""
    return [f"  pruned    {removed:,} images taken before {run.pruned_before}; {left}{undated}"]


def describe_status(status: RunStatus, layout: Layout, now: datetime) -> str:
    """How far a run has come, in words; if it ended by itself, as after ``maskdet score``."""
    run = status.run
    if run.status not in ("running", "failed", "interrupted", "superseded"):
        return describe_run(run, layout)
    reason = f" — {run.reason}" if run.reason else ""
    minutes = ((run.finished_at or now) - run.started_at).total_seconds() / 60
    lines = [
        f"run {run.run_id}: {run.status}{reason}",
        f"  started   {run.started_at:%Y-%m-%d %H:%M:%S} UTC, {minutes:,.1f} minutes "
        + ("before it ended" if run.finished_at else "ago"),
    ]
    if run.status != "running" and not run.scores:
        return "\n".join([*lines, "  run the same command again: it starts from the tables as they are"])
    lines += [
        *_finished(status),
        f"  tables    not complete; finished shards are in {layout.root}",
    ]
    if run.status == "running":
        lines.append(f"  {_life(status, now)}")
    else:
        lines.append("  finished shards are kept: run the same command again to continue")
    return "\n".join(lines)


def describe_kept(layout: Layout, run_id: str) -> str:
    """What an interrupted run leaves behind, in words."""
    try:
        status = read_status(layout, run_id)
    except StorageError as error:
        return f"  {error}"
    return "\n".join([*_finished(status), f"  to see this again: maskdet status {layout.root}"])


def _life(status: RunStatus, now: datetime) -> str:
    """Whether a run that has not ended is still going on, in words."""
    if status.life == "dead":
        return "the run died; run the same command again to continue from what is finished"
    latest = status.heartbeat
    ago = "none yet" if latest is None else f"{(now - latest.at).total_seconds():,.0f} s ago, from {latest.host}"
    if status.life == "silent":
        return f"last sign of life: {ago}; overdue. Run the same command again: it finds out whether the run is dead"
    return f"alive; last sign of life: {ago}"


def _finished(status: RunStatus) -> list[str]:
    if status.shards is None:
        return ["  shards    not known yet: workers are starting, or listing the input"]
    images = status.images
    return [
        f"  shards    {status.finished:,} of {status.shards:,} finished{_share(status.finished, status.shards)}",
        f"  images    {images.accounted:,} of {images.listed:,} finished{_share(images.accounted, images.listed)}: "
        f"{images.scored:,} scored + {images.no_face:,} no face + {images.failed:,} failed",
        *_detail("failed", dict(status.failed_by_code)),
    ]


def _share(part: int, whole: int) -> str:
    return f" ({part / whole:.1%})" if whole else ""


def describe_plan(settings: ScoreSettings, plan: DryRun) -> str:
    """What a run would do, for ``--dry-run``."""
    to_score, problems = plan.to_score, [(ref.uri, ref.problem) for ref in plan.unreadable if ref.problem is not None]
    size_bytes = sum(max(ref.size_bytes, 0) for ref in to_score)
    unreadable, skipped = _images_in(plan.unreadable), sum(plan.skipped.values())
    partitions = len({shard.partition for shard in plan.shards})
    lines = [
        "dry run: nothing is scored, nothing is written",
        f"  images      {plan.listed:,} listed = {_images_in(to_score):,} to score "
        f"+ {plan.kept:,} kept from earlier runs + {unreadable:,} unreadable + {skipped:,} skipped",
        *_planned_videos(plan),
        f"  to read     {describe_bytes(size_bytes)}",
        *_detail("skipped", plan.skipped),
        f"  unreadable  {len(problems):,} paths or rows of image lists; each becomes a failure row",
        *(f"              {uri}: {message}" for uri, (_, message) in problems[:_PROBLEMS_SHOWN]),
        *([f"              and {len(problems) - _PROBLEMS_SHOWN:,} more"] if len(problems) > _PROBLEMS_SHOWN else []),
        *_planned_data_set(plan),
        f"  partitions  {partitions:,} by {list(settings.partition_by) or 'nothing'}",
        f"  shards      {len(plan.shards):,}, of which {plan.finished:,} are finished already",
    ]
    if partitions and sum(shard.images for shard in plan.shards) / partitions < 50:
        lines.append("              fewer than 50 images per partition make many small files; see tables.partition_by")
    return "\n".join([*lines, "settings:", _indented(settings)])


def _images_in(refs: Iterable[ImageRef]) -> int:
    return sum(ref.segment is None for ref in refs)


def _planned_videos(plan: DryRun) -> list[str]:
    if not plan.videos:
        return []
    segments = sum(ref.segment is not None and not ref.gone for shard in plan.shards for ref in shard.refs)
    new = len(plan.to_score) - _images_in(plan.to_score)
    return [f"  videos      {plan.videos:,} listed, {new:,} of {segments:,} segments to score"]


def _planned_data_set(plan: DryRun) -> list[str]:
    """What a run would make of the tables that are there, if there are any."""
    if not plan.changes:
        return []
    refs = [ref for shard in plan.shards for ref in shard.refs]
    videos = len({ref.uri for ref in refs if ref.segment is not None})
    size = f"{_images_in(refs):,} images" + (f" and {videos:,} videos" if videos else "")
    refused = [f"  refused     the run would end with exit code {OutputError.exit_code}: {plan.refusal}"]
    told = f"  data set    would be {size}: {_in_words(plan.changes, planned=True)}"
    return [told, *(refused if plan.refusal else [])]


def describe_tables(layout: Layout, max_rows: int) -> str:
    """An output's tables: their sizes, and the first rows of each level's compliance table and rates of tracks."""
    lines = []
    for table in (*SHARD_TABLES, TRACKS):
        files = [file for file in storage.list_folder(layout.folder(table)) if file.uri.endswith(".parquet")]
        if files or table != TRACKS:
            lines.append(f"{table}: {len(files):,} files, {describe_bytes(sum(file.size_bytes for file in files))}")
    levels = _levels(layout, COMPLIANCE)
    for level in levels:
        rows = read_table(layout.compliance(level))
        zone = (rows.schema.metadata or {}).get(b"maskdet.time_zone", b"").decode()
        times = f", days and hours of {zone}" if zone else ""
        head = f"{COMPLIANCE}, level {level}: {rows.num_rows:,} groups{times}"
        lines += ["", head, format_table(_head(rows, max_rows)), *_left_out(rows, max_rows)]
    lines += ["", _WAYS] if levels else []
    for level in _levels(layout, TRACK_RATES):
        rows = read_table(layout.track_rates(level))
        head = f"{TRACK_RATES}, level {level}: {rows.num_rows:,} groups, n = tracks"
        lines += ["", head, format_table(_head_of_tracks(rows, max_rows)), *_left_out(rows, max_rows)]
    return "\n".join(lines)


def _left_out(rows: pa.Table, max_rows: int) -> list[str]:
    more = rows.num_rows - max_rows
    return [f"  and {more:,} more; to see them: --rows {rows.num_rows}"] if more > 0 else []


def _levels(layout: Layout, table: str) -> list[str]:
    """The levels for which a table has files, in order."""
    files = storage.list_folder(layout.folder(table))
    return sorted(storage.parent(file.uri).rpartition("level=")[2] for file in files if file.uri.endswith(".parquet"))


def format_table(table: pa.Table) -> str:
    """A table in aligned columns."""
    texts = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    widths = [max(map(len, [name, *column])) for name, column in zip(table.column_names, texts, strict=True)]
    rows = [table.column_names, *(list(row) for row in zip(*texts, strict=True))]
    return "\n".join(
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def describe_bytes(size_bytes: float) -> str:
    """A size with a decimal unit."""
    for unit in _UNITS:
        if size_bytes < 999.95 or unit == _UNITS[-1]:  # larger values would be rounded to 1,000.0
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError("the last unit takes every size")


def _head(rows: pa.Table, max_rows: int) -> pa.Table:
    """The first rows as people read them: each rate with the interval to quote, and how it was made."""
    wanted = ["images_listed", "images_failed", "no_face_share", "faces", "faces_uncertain"]
    wanted = [name for name in wanted if name in rows.column_names]  # an older version knew fewer
    keys = rows.column_names[: rows.column_names.index("images_listed")]
    used = [name for name in keys if pc.count(rows[name]).as_py()]
    head = rows.slice(0, max_rows)
    told = head.to_pylist()
    shown = head.select([*used, *wanted, "mask_rate"])
    shown = shown.append_column("to quote", [[_quoted(row, "any_mask_rate") for row in told]])
    if pc.count(rows["faces_incorrect"]).as_py():  # otherwise the model cannot tell
        for name in ("faces_incorrect", "correct_rate"):
            shown = shown.append_column(name, head[name])
        shown = shown.append_column("correct, to quote", [[_quoted(row, "correct_rate") for row in told]])
    return shown


def _quoted(row: Mapping[str, Any], name: str) -> str | None:
    """A rate with the interval that its table recommends, in a cell; ``None`` where there is no rate."""
    if "recommended" not in row:  # tables of an older version have only the naive one
        old = "mask_rate" if name == "any_mask_rate" else name
        return None if row[old] is None else _rate_cell(row[old], row[f"{old}_low"], row[f"{old}_high"], _NAIVE)
    if row[name] is None:
        return None
    way = row["recommended"]
    if way is None:
        return f"{row[name]:.3f} (no interval: one cluster)"
    if way in ("melded", "corrected") and row[f"{name}_{way}_low"] is None:  # errors are known for the other rate only
        way = "cluster" if way == "melded" else "wilson"
    if way == "wilson":
        return _rate_cell(row[name], row[f"{name}_low"], row[f"{name}_high"], _NAIVE)
    share = row[name if way == "cluster" else f"{name}_corrected"]
    return _rate_cell(share, row[f"{name}_{way}_low"], row[f"{name}_{way}_high"], way)


def _rate_cell(share: float, low: float, high: float, way: str) -> str:
    return f"{share:.3f} ({low:.3f} to {high:.3f}) {way}"


def _head_of_tracks(rows: pa.Table, max_rows: int) -> pa.Table:
    keys = rows.column_names[: rows.column_names.index("tracks")]
    used = [name for name in keys if pc.count(rows[name]).as_py()]
    counts = [name for name in rows.column_names if name.startswith("tracks")]
    rates = [f"{rate}{end}" for rate in ("any_mask_rate", "correct_rate") for end in ("", "_low", "_high")]
    # A model that cannot tell masks worn incorrectly leaves columns empty.
    told = [name for name in (*counts, *rates) if pc.count(rows[name]).as_py() or name in ("tracks", *rates[:3])]
    return rows.select([*used, *told]).slice(0, max_rows)


def _cell(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:.3f}"
    # Names come from paths and lists: a terminal must not interpret what they contain.
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(value))


def _detail(name: str, counts: Mapping[str, int]) -> list[str]:
    text = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    return [f"  {name:<9} {text}"] if counts else []


def _data_set(run: RunRecord) -> list[str]:
    """What the run did to the data set, or would have done, where that is larger than the run's input."""
    if set(run.changes) <= {ADDED}:
        return []
    refused = run.status not in ("succeeded", "over_budget")  # the tables are those of before
    would_be = "stays as it was; would be " if refused else ""
    counts = _in_words(run.changes, planned=refused)
    return [f"  data set  {would_be}{run.dataset.listed:,} images{_and_videos(run)}: {counts}"]


def _in_words(changes: Mapping[str, int], *, planned: bool) -> str:
    """Changes of a data set in words; ``planned``: they were not made."""
    words = {
        ADDED: "added",
        CHANGED: "changed",
        UNCHANGED: "unchanged",
        GONE: "gone whose rows stay",
        ABSENT: "named by the input, not there, whose rows stay",
        REMOVED: "gone whose rows would go" if planned else "gone whose rows went",
        DISPLACED: "whose path or list row no longer fits, whose rows stay",
        LOST: "whose rows a failure would replace" if planned else "whose rows a failure replaces",
        OUTSIDE: "of earlier runs beyond this input",
    }
    return ", ".join(f"{changes[change]:,} {word}" for change, word in words.items() if changes.get(change))


def _and_videos(run: RunRecord) -> str:
    return f" and {run.dataset_videos.listed:,} videos" if run.dataset_videos else ""


def _tables(run: RunRecord) -> list[str]:
    """Tables of the output, by the names of their folders."""
    return [*SHARD_TABLES, COMPLIANCE, *((TRACKS, TRACK_RATES) if run.tracks else ())]


def _videos(videos: VideoCounts | None) -> list[str]:
    if videos is None:
        return []
    return [
        f"  videos    {videos.listed:,} listed = {videos.scored:,} scored + {videos.failed:,} failed",
        f"  frames    {videos.frames:,} sampled = {videos.frames_scored:,} scored + {videos.frames_no_face:,} no face "
        f"+ {videos.frames_failed:,} failed",
    ]


def _skipped_videos(run: RunRecord) -> list[str]:
    """What to install where videos were skipped because it is missing."""
    video = VideoSettings.model_validate(run.settings.get("video", {}))
    reasons = {f"extension .{extension}" for extension in video.extensions}
    if is_installed() or not reasons & set(run.skipped_by_reason):
        return []
    return [f"            videos are read where {EXTRA} is installed: pip install '{EXTRA}'"]


def _mask_rate(run: RunRecord) -> list[str]:
    faces, images = run.faces, run.dataset
    decided = sum(count for label, count in faces.items() if label != UNCERTAIN)
    if not decided:
        return []
    readable = images.scored + images.no_face
    # Images without a face are not missing at random: a rate is never shown without their share.
    beside = f"; no face in {images.no_face / readable:.1%} of the images" if readable else ""
    if INCORRECT not in faces:
        of = f"of {decided:,} faces labelled mask or no_mask (uncorrected)"
        return [f"  mask rate {faces[MASK] / decided:.1%} {of}{beside}"]
    correct, worn = faces[MASK] / decided, (faces[MASK] + faces[INCORRECT]) / decided
    of = f"of {decided:,} faces labelled mask, incorrect or no_mask (uncorrected)"
    return [f"  mask rate {worn:.1%} wear one, {correct:.1%} correctly, {of}{beside}"]


def _models(run: RunRecord) -> list[str]:
    """Whose faces they are, where they are of more models than one."""
    latest = str(run.model["id"])
    others = {model: faces for model, faces in run.faces_by_model.items() if model != latest}
    if not others:
        return []
    told = [f"{run.faces_by_model.get(latest, 0):,} faces of {latest}"]
    told += [f"{faces:,} of {model}" for model, faces in others.items()]
    return [f"  models    {', '.join(told)}, of images not read since"]


def _corrections(run: RunRecord) -> list[str]:
    if not run.corrections and not run.recounted:
        return []
    return [f"  corrected {run.corrections:,} labels that people gave count in place of the model's"]


def _groups(run: RunRecord) -> list[str]:
    """How faces were grouped by time and cluster, where the record says so."""
    compliance = run.settings.get("compliance", {})
    cluster, zone = compliance.get("cluster"), compliance.get("time_zone")
    if cluster is None or zone is None:
        return []
    return [f"  groups    days and hours of {zone}; clusters of {' x '.join(cluster) if cluster else 'nothing'}"]


def _thresholds(run: RunRecord) -> str:
    try:
        return str(run.decision)
    except OutputError:  # a record of an older version; the rest of it can still be shown
        return "thresholds unknown"


def _speed(run: RunRecord) -> str:
    if run.finished_at is None:
        return "not finished"
    wall_s = (run.finished_at - run.started_at).total_seconds()
    rate = f", {run.images_scored_now / wall_s:,.0f} images/s" if run.images_scored_now and wall_s > 0 else ""
    threads = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in run.thread_seconds.items() if seconds)
    return f"{wall_s:.1f} s{rate}" + (f" (thread-seconds: {threads})" if threads else "")


def _indented(settings: ScoreSettings) -> str:
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())
