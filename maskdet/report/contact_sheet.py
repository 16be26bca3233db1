"""A contact sheet: one picture of many faces, in sections with titles."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from maskdet import storage
from maskdet.errors import ConfigError, SourceError
from maskdet.report.face_crops import Crop, crops_of_run
from maskdet.report.marks import (
    BLACK,
    GREY,
    STYLES,
    UNLABELLED,
    WHITE,
    answer,
    fit_text,
    font_of,
    printable,
    shown_probability,
    text_size,
)
from maskdet.report.sampling import EVERYWHERE, FACE_COLUMNS, Section, Where, choose_sections
from maskdet.tables.layout import Layout
from maskdet.tables.runs import RunRecord
from maskdet.tables.snapshot import read_snapshot

MOST_TILES = 200
"""Most tiles of a section; six sections of that size make a picture of 40 megapixels."""

PICTURE_PX = 144
BORDER_PX = 4
GAP_PX = 12
TITLE_PX = 40
CAPTION_PX = 62
HEAD_PX = 44

# Columns of a row that describe its face; the others are keys.
_OWN = frozenset({*FACE_COLUMNS, "captured_at"})

_TILE_PX = PICTURE_PX + 2 * BORDER_PX
_COLUMNS = range(6, 11)
_TITLE_TEXT_PX = 20
_CAPTION_TEXT_PX = 14


class Sheet(NamedTuple):
    """A contact sheet."""

    picture: Image.Image
    lines: list[str]
    """What each tile is, one per line, by the number in its caption."""
    missing: int
    """Tiles without a picture, because the image is gone, changed or unreadable."""


class SheetPlan(NamedTuple):
    """Where everything is on a sheet, in pixels."""

    size: tuple[int, int]
    title_tops: list[int]
    tiles: list[tuple[int, int]]
    """Left and top of each tile, its border included, section by section."""


def make_sheet(
    layout: Layout,
    run: RunRecord,
    count: int,
    seed: int,
    allowed: Mapping[str, tuple[str | None, ...]] | None = None,
) -> Sheet:
    """A contact sheet of an output; faces are read from their sources at this moment and stored nowhere else.

    Args:
        layout: the output.
        run: its latest run.
        count: most tiles per section, 1 to :data:`MOST_TILES`.
        seed: another seed gives another random choice.
        allowed: key → the values that it may have, as :class:`maskdet.report.sampling.Where` has them.

    Raises:
        ConfigError: the count is out of range, or there is no such key.
        SourceError: there is nothing to show.
        StorageError: a table cannot be read.
    """
    if not 1 <= count <= MOST_TILES:
        raise ConfigError("--sheet", f"1 to {MOST_TILES} tiles per section", count, "Look at some, then choose others.")
    snapshot = read_snapshot(layout)
    where = EVERYWHERE if snapshot is None else Where.of(snapshot.dataset, allowed or {})
    sections = choose_sections(layout, run, count, seed, where)
    if not sections:
        remedy = "Run maskdet score over images that can be read, or ask --where for others."
        raise SourceError(f"output {layout.root}", "a face, or an image without one", "none", remedy)
    rows = [row for section in sections for row in section.rows]
    crops = crops_of_run(run, rows, PICTURE_PX)
    head = f"{layout.root} · run {run.run_id} · {run.model.get('id', 'unknown model')}"
    return Sheet(draw_sheet(head, sections, crops), _lines(sections, crops), sum(isinstance(c, str) for c in crops))


def draw_sheet(head: str, sections: Sequence[Section], crops: Sequence[Crop]) -> Image.Image:
    """Draw a sheet.

    Args:
        head: its first line.
        sections: what to show.
        crops: RGB ``PICTURE_PX`` square or the reason why there is none, one for each row of the sections, in order.
    """
    plan = plan_sheet([len(section.rows) for section in sections])
    canvas = Image.new("RGB", plan.size, WHITE)
    draw = ImageDraw.Draw(canvas)
    width = plan.size[0] - 2 * GAP_PX
    _write(draw, (GAP_PX, GAP_PX), printable(head), _TITLE_TEXT_PX, width)
    for section, top in zip(sections, plan.title_tops, strict=True):
        title = f"{section.title}: {len(section.rows):,} of {section.total:,}"
        _write(draw, (GAP_PX, top + GAP_PX), title, _TITLE_TEXT_PX, width)
    rows = [row for section in sections for row in section.rows]
    for number, (row, crop, place) in enumerate(zip(rows, crops, plan.tiles, strict=True), start=1):
        _draw_tile(canvas, draw, place, number, row, crop)
    return canvas


def plan_sheet(counts: Sequence[int]) -> SheetPlan:
    """Lay a sheet out: a head, then for each section a title and rows of tiles.

    Args:
        counts: tiles of each section.
    """
    columns = min(max([_COLUMNS.start, *counts]), _COLUMNS.stop - 1)
    top, titles, tiles = HEAD_PX, [], []
    for count in counts:
        titles.append(top)
        top += TITLE_PX
        for index in range(count):
            row, column = divmod(index, columns)
            tiles.append((GAP_PX + column * (_TILE_PX + GAP_PX), top + row * (_TILE_PX + CAPTION_PX)))
        top += -(-count // columns) * (_TILE_PX + CAPTION_PX)
    return SheetPlan((GAP_PX + columns * (_TILE_PX + GAP_PX), top + GAP_PX), titles, tiles)


def write_sheet(uri: str, sheet: Sheet) -> None:
    """Write a sheet as PNG, atomically.

    Raises:
        ConfigError: the file name is that of another format.
        StorageError: the location cannot be written.
    """
    check_sheet_name(uri)
    stream = io.BytesIO()
    sheet.picture.save(stream, "PNG")
    storage.write_bytes(uri, stream.getvalue())


def check_sheet_name(uri: str) -> None:
    """Refuse a file name of another format than PNG.

    Raises:
        ConfigError: it is one.
    """
    if PurePosixPath(uri).suffix.lower() != ".png":
        raise ConfigError("--sheet-output", "a name that ends in .png", uri, "Sheets are PNG files.")


def _draw_tile(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    number: int,
    row: dict[str, Any],
    crop: Crop,
) -> None:
    left, top = place
    style = STYLES[row["label"]] if "label" in row else UNLABELLED
    draw.rectangle((left, top, left + _TILE_PX - 1, top + _TILE_PX - 1), fill=style.colour)
    inner = (left + BORDER_PX, top + BORDER_PX)
    if isinstance(crop, str):
        draw.rectangle((*inner, inner[0] + PICTURE_PX - 1, inner[1] + PICTURE_PX - 1), fill=GREY)
        for index, word_line in enumerate(crop.split(maxsplit=1)):
            place_px = (inner[0] + GAP_PX // 2, inner[1] + PICTURE_PX // 3 + index * (_CAPTION_TEXT_PX + 4))
            _write(draw, place_px, word_line, _CAPTION_TEXT_PX, PICTURE_PX - GAP_PX)
    else:
        canvas.paste(crop, inner)
    name = printable(PurePosixPath(row["image_uri"]).name)
    for index, text in enumerate((f"{number}  {_words(row)}", name, _place(row))):
        place_px = (left, top + _TILE_PX + 2 + index * (_CAPTION_TEXT_PX + 4))
        _write(draw, place_px, text, _CAPTION_TEXT_PX, _TILE_PX)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size_px: int, width_px: int) -> None:
    assert text_size("...", size_px)[0] <= width_px
    draw.text(place, fit_text(text, size_px, width_px), fill=BLACK, font=font_of(size_px))


def _place(row: dict[str, Any]) -> str:
    """Keys and capture time of a row, in words; empty for rows that carry none."""
    shown = [str(row[name]) for name in row if name not in _OWN and row[name] is not None]
    when = row.get("captured_at")
    return printable(" · ".join([*shown, *([f"{when:%Y-%m-%d %H:%M}Z"] if when is not None else [])]))


def _words(row: dict[str, Any]) -> str:
    if "label" not in row:
        return "no face"
    return answer(row["label"], row["label"], f"{shown_probability(row):.3f}")


def _lines(sections: Sequence[Section], crops: Sequence[Crop]) -> list[str]:
    lines, number = [], 0
    for section in sections:
        lines.append(f"{section.title}: {len(section.rows):,} of {section.total:,}")
        for row in section.rows:
            crop = crops[number]
            number += 1
            face = f"  face {row['face_index']}" if "face_index" in row else ""
            place = f"  {_place(row)}" if _place(row) else ""
            why = f"  ({crop})" if isinstance(crop, str) else ""
            lines.append(f"  {number:>4}  {_words(row):<15}{face}  {printable(row['image_uri'])}{place}{why}")
    return lines
