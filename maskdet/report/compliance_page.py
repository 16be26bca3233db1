"""One HTML page about an output that anyone can understand: ``maskdet report``.

It has no scripts and refers to nothing outside the file. It depends on the tables alone: the same output gives the same
page. Every number on it is in a ``data`` element with its exact value and its name, so that programs, and the tests,
can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from maskdet import __version__, storage
from maskdet.errors import ConfigError, ModelError, StorageError
from maskdet.inputs.earlier import ABSENT, DISPLACED, GONE
from maskdet.labels import INCORRECT, LABELS, MASK, NO_MASK
from maskdet.model.bundle import read_manifest
from maskdet.model.manifest import Manifest
from maskdet.report.database import Selection, Tables
from maskdet.report.excel import excel_bytes, report_sheets
from maskdet.report.face_tiles import FaceSection, read_faces
from maskdet.report.failure_words import FAILURE_WORDS
from maskdet.report.figures import BINS, Figures, Group, earlier_models, period_of, periods, read_figures
from maskdet.report.people_section import People, people_sheet, pictures_word, read_people
from maskdet.report.rows import MOST_GROUPS, Row, row_of, scale_of
from maskdet.report.scales import Mark, Scale, of_hundred, spread_labels, stacked
from maskdet.report.templating import rendered
from maskdet.report.words import bare_share, group_name, share
from maskdet.tables.disclosure import privacy_of, refuse_small_groups
from maskdet.tables.metadata import NO_METADATA, Metadata
from maskdet.tables.run_records import RunRecord, scoring_run

MOST_PANELS = 12
MOST_IN_PANEL = 12
MOST_PERIODS_SHOWN = 62
_UNSEEN = {
    ABSENT: "that the input still names",
    GONE: "that the input no longer has",
    DISPLACED: "whose path or list row no longer fits",
}
"""Change → what it means for images and videos."""


class Point(NamedTuple):
    """A period in a chart over time."""

    name: str
    day: date
    group: Group | None
    x: float
    y: float | None
    span: tuple[float, float] | None
    volume: float
    """The number of its faces, in percent of the largest period's."""


class Series(NamedTuple):
    """A chart over time."""

    points: list[Point]
    runs: list[str]
    """Lines between consecutive periods, as points of a polyline."""
    labels: list[Mark]


@dataclass(frozen=True)
class Panel:
    """A site with its parts and its days."""

    name: str
    group: Group
    rows: list[Row[Group]]
    more: int
    series: Series


def render(
    tables: Tables,
    figures: Figures,
    selection: Selection,
    title: str,
    faces: Sequence[FaceSection] = (),
    people: People | None = None,
) -> str:
    """The page's HTML.

    Args:
        tables: what it is about.
        figures: the figures.
        selection: which part of the output it is about.
        title: the page's.
        faces: pictures to show; default: none.
        people: people in videos; default: none.
    """
    order = _by_rate(figures.groups)
    page = rendered(
        "report.html.j2",
        title=title,
        people=people,
        pictures=pictures_word(people),
        figures=figures,
        run=tables.run,
        output=tables.layout.root,
        timezone=tables.timezone,
        selection=selection,
        version=__version__,
        verb="wore a mask correctly" if figures.tells_incorrect else "wore a mask",
        labels=[label for label in LABELS if figures.tells_incorrect or label != "incorrect"],
        **_cluster_words(tables),
        named=sum(group.values != (None,) for group in figures.groups),
        hundred=_hundred(figures),
        **_by_group(figures, order),
        **_over_time(figures),
        panels=_panels(figures, order),
        histogram=_histogram(figures),
        coverage=_coverage(figures, order),
        unseen=unseen(tables),
        failures=[(code, images, FAILURE_WORDS.get(code, "")) for code, images in figures.failures.items()],
        card=model_card(tables.run),
        earlier_models=earlier_models(tables, selection),
        query=query(tables, figures),
        faces=faces,
        parts=stacked,
    )
    return str(page)


def model_card(run: RunRecord) -> Manifest | None:
    """The manifest of the model that a run used, if it is still where the run found it."""
    uri = str(run.settings.get("model", {}).get("uri", "builtin"))
    try:
        manifest = read_manifest(uri)
    except (ModelError, StorageError):
        return None
    return manifest if manifest.fingerprint == run.model.get("fingerprint") else None


def unseen(tables: Tables) -> list[tuple[str, int, str]]:
    """Images and videos that the last scoring run did not find, and whose rows stay.

    Returns:
        For each such change: its name, how many images and videos, and its meaning.
    """
    changes = scoring_run(tables.layout, tables.run).changes
    return [(change, changes[change], words) for change, words in _UNSEEN.items() if changes.get(change)]


def query(tables: Tables, figures: Figures) -> str:
    """An SQL query that gives the numbers by the first key."""
    folder = tables.layout.folder("predictions").replace("'", "''")
    names = ["'" + "', '".join(LABELS[:3]) + "'"]
    stored = figures.keys and figures.keys[0] in tables.stored_keys
    key = '"' + figures.keys[0].replace('"', '""') + '", ' if stored else ""
    success = "label = 'mask'" if figures.tells_incorrect else "label IN ('mask', 'incorrect')"
    return (
        f"SELECT {key}count(*) FILTER (label IN ({names[0]})) AS faces,\n"
        f"       count(*) FILTER ({success}) AS {'worn_correctly' if figures.tells_incorrect else 'masked'}\n"
        f"FROM read_parquet('{folder}/**/*.parquet')\nGROUP BY ALL ORDER BY ALL;"
    )


def _cluster_words(tables: Tables) -> dict[str, str]:
    """In words, which faces form a cluster: within a day and, for comparisons of periods, over all days."""
    return {"cluster_words": _alike(tables, of_day=True), "pair_words": _alike(tables, of_day=False)}


def _alike(tables: Tables, *, of_day: bool) -> str:
    if tables.cluster is not None:
        return f"faces of one {' and '.join(name for name in tables.cluster if of_day or name != 'date')}"
    hour = "hour" if of_day else "hour of the day"
    return f"faces of one camera and {hour}" if "camera" in tables.keys else f"faces of one place and {hour}"


def _by_rate(groups: Sequence[Group]) -> list[Group]:
    """Groups with the lowest rate first and those without faces last."""
    return sorted(groups, key=lambda group: (group.rate.share is None, group.rate.share or 0.0))


def _row(scale: Scale, group: Group) -> Row[Group]:
    return row_of(scale, group.values, group, group.rate)


def _by_group(figures: Figures, order: Sequence[Group]) -> dict[str, Any]:
    shown = order[:MOST_GROUPS]
    scale = scale_of(group.rate for group in [figures.total, *shown])
    rows = [_row(scale, group) for group in shown]
    return {"scale": scale, "rows": rows, "total_row": _row(scale, figures.total), "rest": len(order) - len(shown)}


def _hundred(figures: Figures) -> dict[str, int]:
    """Faces of every hundred, by label; those that the rate counts come first."""
    counts = figures.total.counts
    if not figures.tells_incorrect:
        worn = counts.faces_mask + counts.faces_incorrect
        return dict(zip((MASK, NO_MASK), of_hundred((worn, counts.faces_no_mask)), strict=True))
    parts = (counts.faces_mask, counts.faces_incorrect, counts.faces_no_mask)
    return dict(zip((MASK, INCORRECT, NO_MASK), of_hundred(parts), strict=True))


def _over_time(figures: Figures) -> dict[str, Any]:
    scale = scale_of(group.rate for group in [figures.total, *figures.trend])
    return {"time_scale": scale, "series": _series(figures, figures.trend, scale)}


def _series(figures: Figures, trend: Sequence[Group], scale: Scale, most_labels: int = 6) -> Series:
    known = {period_of(group.values[0], figures.unit): group for group in trend}
    days = periods(figures)
    names = [period_name(day, figures.unit) for day in days]
    largest = max((group.counts.faces for group in trend), default=0) or 1
    points = []
    for number, (day, name) in enumerate(zip(days, names, strict=True)):
        group = known.get(day)
        rate = group.rate if group is not None else None
        share = rate.share if rate is not None else None
        interval = rate.interval if rate is not None else None
        points.append(
            Point(
                name,
                day,
                group,
                x=round(100 * (number + 0.5) / len(days), 2),
                y=None if share is None else round(100 - scale.at(share), 2),
                span=None if interval is None else (100 - scale.at(interval.high), 100 - scale.at(interval.low)),
                volume=0.0 if group is None else round(100 * group.counts.faces / largest, 1),
            )
        )
    runs: list[list[str]] = [[]]
    for point in points:
        if point.y is None:
            runs.append([])
        else:
            runs[-1].append(f"{point.x},{point.y}")
    labels = [Mark(points[place].x, names[place]) for place in spread_labels(names, most_labels)]
    return Series(points, [" ".join(run) for run in runs if len(run) > 1], labels)


def period_name(day: date, unit: str) -> str:
    """A period as people write it."""
    return f"{day:%B %Y}" if unit == "month" else f"{day.day} {day:%b}"


def _panels(figures: Figures, order: Sequence[Group]) -> dict[str, Any]:
    shown = order[:MOST_PANELS]
    inner = [group for one in shown for group in _by_rate(figures.subgroups.get(one.values[0], []))[:MOST_IN_PANEL]]
    scale = scale_of(group.rate for group in [*shown, *inner])
    trends = [group for one in shown for group in figures.group_trends.get(one.values[0], [])]
    time_scale = Scale.around([group.rate.share for group in [*trends, *shown]])
    panels = []
    for one in shown:
        parts = _by_rate(figures.subgroups.get(one.values[0], []))
        series = _series(figures, figures.group_trends.get(one.values[0], []), time_scale, most_labels=2)
        rows = [_row(scale, group) for group in parts[:MOST_IN_PANEL]]
        panels.append(Panel(group_name(one.values), one, rows, len(parts) - len(rows), series))
    return {"scale": scale, "time_scale": time_scale, "all": panels, "more": len(order) - len(shown)}


def _histogram(figures: Figures) -> list[dict[str, Any]]:
    columns = [{label: figures.bins[label][place] for label in LABELS} for place in range(BINS)]
    largest = max((sum(column.values()) for column in columns), default=0)
    return [
        {
            "from": place / BINS,
            "to": (place + 1) / BINS,
            "counts": column,
            "faces": sum(column.values()),
            "parts": stacked(list(column.values()), largest),
        }
        for place, column in enumerate(columns)
    ]


def _coverage(figures: Figures, order: Sequence[Group]) -> dict[str, Any]:
    """How many images each site has in each of the latest periods."""
    days = periods(figures)[-MOST_PERIODS_SHOWN:]
    rows = []
    for one in sorted(order[:MOST_GROUPS], key=lambda group: group_name(group.values)):
        known = {group.values[0]: group.counts.images_listed for group in figures.group_trends.get(one.values[0], [])}
        rows.append((group_name(one.values), [known.get(day, 0) for day in days]))
    if not figures.keys and figures.trend:
        known = {group.values[0]: group.counts.images_listed for group in figures.trend}
        rows = [("all", [known.get(day, 0) for day in days])]
    largest = max((number for _, numbers in rows for number in numbers), default=0) or 1
    names = [period_name(day, figures.unit) for day in days]
    return {"days": days, "names": names, "rows": rows, "largest": largest, "shown": spread_labels(names, 6)}


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        sentence: its main result in a sentence.
        size_bytes: of its file.
    """

    sentence: str
    size_bytes: int


def write_report(
    output: str,
    page: str,
    selection: Selection,
    *,
    by: Sequence[str] | None = None,
    title: str | None = None,
    faces: int = 0,
    excel: str | None = None,
    small_groups: bool = False,
    metadata: Metadata = NO_METADATA,
) -> Written:
    """Write the page about an output.

    Args:
        output: the output of scoring runs.
        page: where the page goes.
        selection: keys and days that it is about.
        by: one or two keys that groups are of; default: the first two.
        title: the page's; default: a general one.
        faces: most faces of each label to show.
        excel: where to write the figures as an Excel file; default: nowhere.
        metadata: more keys, derived from one of the output's.
        small_groups: show small groups and exact counts even where ``privacy`` hides or rounds them in the tables.

    Raises:
        ConfigError: the tables lack a key, no image is selected, there are too many faces, or small groups have to be
            hidden.
        SourceError: no run has finished there, or there is no such place.
        StorageError: something cannot be read or written.
    """
    with Tables(output, metadata) as tables:
        refuse_small_groups([tables.run], allowed=small_groups)
        if faces:
            _refuse_hidden(tables)
        figures = read_figures(tables, selection, by)
        if not figures.total.counts.images_listed:
            raise _nothing_selected(tables, selection)
        shown = read_faces(tables, selection, faces) if faces else ()
        people = read_people(tables, selection, figures.keys[0] if figures.keys else None)
        html = render(tables, figures, selection, title or "Who wears a mask", shown, people)
    storage.write_bytes(page, html.encode())
    if excel is not None:
        sheets = report_sheets(figures)
        if people is not None:
            sheets["people"] = people_sheet(people, tells_incorrect=figures.tells_incorrect)
        storage.write_bytes(excel, excel_bytes(sheets))
    return Written(headline(figures), len(html.encode()))


def _nothing_selected(tables: Tables, selection: Selection) -> ConfigError:
    keys = [f"{name}={value or ''}" for name, values in selection.keys.items() for value in values]
    days = {"since": selection.since, "until": selection.until}
    asked = [*keys, *(f"{name} {day}" for name, day in days.items() if day is not None)]
    first, last = (tables.local_time(ms) for ms in tables.captured_ms())
    span = "None has a capture time." if first is None or last is None else f"They are of {first:%F} to {last:%F}."
    remedy = f"{span} See maskdet inspect for values of keys."
    return ConfigError("the selection", "one with images of the output", f"none of {', '.join(asked)}", remedy)


def _refuse_hidden(tables: Tables) -> None:
    if privacy_of(tables.run).uri != "plain":
        remedy = "Leave --faces out: whose images these are is hidden from the tables, too."
        raise ConfigError("--faces", "tables that know the names of their images", "hidden names (privacy.uri)", remedy)


def headline(figures: Figures) -> str:
    """The rate with its interval, in a sentence."""
    rate = figures.total.rate
    if rate.share is None:
        return "no face could be labelled"
    verb = "wore a mask correctly" if figures.tells_incorrect else "wore a mask"
    interval = "" if rate.interval is None else f" ({bare_share(rate.interval.low)} to {share(rate.interval.high)})"
    return f"{share(rate.share)}{interval} of {rate.faces:,} faces {verb}"
