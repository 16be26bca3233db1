"""What may leave an output besides its tables, where ``privacy`` hides or rounds their counts.

One rule: the tables of counts (``compliance/``, ``track_rates/``) hide and round, metrics show what those show, in
steps that are not small either, and whatever counts rows anew refuses, unless its caller says that its reader may see
small groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from maskdet.compliance.small_cells import is_small, round_count
from maskdet.errors import ConfigError
from maskdet.inputs.earlier import CHANGES
from maskdet.sections import PrivacySettings
from maskdet.tables.layout import COMPLIANCE, Layout, read_version
from maskdet.tables.run_records import ImageCounts, RunRecord
from maskdet.tables.snapshot import read_snapshot
from maskdet.tables.videos import VideoCounts

_OF_PEOPLE = ("scored", "no_face")


def privacy_of(run: RunRecord) -> PrivacySettings:
    """What the tables of a run hide; nothing where an older version wrote its record."""
    return PrivacySettings.model_validate(run.settings.get("privacy", {}))


def refuse_small_groups(runs: Iterable[RunRecord], *, allowed: bool) -> None:
    """Refuse to count rows whose counts the tables hide or round.

    Args:
        runs: those that left the tables.
        allowed: whether the reader may see them anyway.

    Raises:
        ConfigError: they hide or round.
    """
    for run in runs:
        privacy = privacy_of(run)
        if privacy.guards and not allowed:
            received = f"privacy.min_cell = {privacy.min_cell}, privacy.round_to = {privacy.round_to}"
            remedy = (
                "It counts rows, and would undo that. Read the compliance tables, or add --small-groups "
                "if its reader may see small groups and exact counts."
            )
            raise ConfigError("output", "one whose tables hide no group and round no count", received, remedy)


def shown_faces(layout: Layout, run: RunRecord) -> dict[str, int]:
    """Faces of a data set by label, as the compliance table of all says, in steps; none where it hides them.

    Args:
        layout: the output.
        run: one that made its tables. Where others have replaced them, nothing may be shown.

    Raises:
        StorageError: the output cannot be read.
    """
    if not privacy_of(run).guards:
        return run.faces
    snapshot = read_snapshot(layout)
    if snapshot is None or snapshot.run_id != run.run_id or "all" not in snapshot.compliance:
        return {}
    columns = ["hidden", *(f"faces_{label}" for label in run.faces)]
    table = read_version(layout, COMPLIANCE, "all", snapshot.compliance["all"], columns)
    rows = [] if table is None else table.to_pylist()
    step = _step(privacy_of(run))
    return {label: round_count(row[f"faces_{label}"], step) for row in rows if not row["hidden"] for label in run.faces}


def shown_images(images: ImageCounts, privacy: PrivacySettings) -> dict[str, int]:
    """Images by outcome, and listed, in steps; none where few of them may show people."""
    return _shown({name: getattr(images, name) for name in ImageCounts.model_fields}, privacy)


def shown_videos(videos: VideoCounts, privacy: PrivacySettings) -> dict[str, int]:
    """Videos by outcome, and listed, by the same rule."""
    return _shown({name: getattr(videos, name) for name in ("listed", "scored", "failed")}, privacy)


def shown_changes(changes: Mapping[str, int], privacy: PrivacySettings) -> dict[str, int]:
    """Images and videos of a data set by how a run found them, each in steps; without those that are small."""
    shown = {change: shown_count(changes.get(change, 0), privacy) for change in CHANGES}
    return {change: count for change, count in shown.items() if count is not None}


def shown_count(count: int, privacy: PrivacySettings) -> int | None:
    """A count by itself, in steps; ``None`` where it is small."""
    return None if is_small(count, privacy.min_cell) else round_count(count, _step(privacy))


def _shown(counts: Mapping[str, int], privacy: PrivacySettings) -> dict[str, int]:
    """Counts of which ``listed`` is the sum of the others."""
    if any(is_small(counts.get(name, 0), privacy.min_cell) for name in _OF_PEOPLE):
        return {}
    shown = {name: round_count(count, _step(privacy)) for name, count in counts.items() if name != "listed"}
    # Rounded on its own, it would change between the others' steps, and so reveal smaller ones.
    return {"listed": sum(shown.values()), **shown}


def _step(privacy: PrivacySettings) -> int:
    """What shown counts are multiples of: of ``round_to``, and no less than ``min_cell``.

    Metrics are read again and again. Were they exact, each new face of a hidden group would change them by one, while
    all groups that are shown stay as they are.
    """
    if not privacy.hides:
        return privacy.round_to
    return privacy.round_to * -(-privacy.min_cell // privacy.round_to)
