"""People in videos on the report's page: counts and rates agree with the tables, and frames are called frames."""

from __future__ import annotations

import re
from datetime import date

import openpyxl
import pyarrow.dataset as ds
import pytest
from filmed_output import score_films

from maskdet.cli.main import main
from maskdet.report.database import Selection, Tables
from maskdet.report.people_section import people_sheet, read_people
from maskdet.report.track_figures import read_track_figures
from maskdet.tables.layout import PREDICTIONS, TRACK_RATES, TRACKS

_DATA = re.compile(r'<data data-of="([^"]+)" value="([^"]*)">')


@pytest.fixture(scope="module")
def output(score, demo, tmp_path_factory):
    return score_films(score, demo, tmp_path_factory.mktemp("filmed"))


def rows(output, table):
    return ds.dataset(output.folder / table, format="parquet", partitioning=None).to_table().to_pylist()


def report(output, *flags):
    """The page, and its numbers by name."""
    page = output.folder / "report.html"
    assert main(["report", str(output.folder), *flags]) == 0
    html = page.read_text()
    return html, {name: float(value) if value else None for name, value in _DATA.findall(html)}


def rate_of(output, site):
    [rate] = [row for row in rows(output, TRACK_RATES) if row["site"] == site and row["date"] is None]
    return rate


def test_rates_of_people_are_those_of_track_rates(output):
    _, numbers = report(output)
    for name, site in (("people", None), ("people.group.north", "north"), ("people.group.south", "south")):
        expected = rate_of(output, site)
        interval = "people.all.interval" if site is None else f"{name}.interval"
        assert numbers[f"{name}.share"] == expected["correct_rate"]
        assert numbers[f"{interval}.low"] == expected["correct_rate_low"]
        assert numbers[f"{interval}.high"] == expected["correct_rate_high"]
        assert numbers[f"{name}.labelled"] == expected["tracks"] - expected["tracks_uncertain"]
    # Three of three wore none: Wilson's interval of 0 of 3 ends at z² / (3 + z²).
    assert numbers["people.interval.high"] == pytest.approx(1.959964**2 / (3 + 1.959964**2), abs=1e-5)


def test_counts_are_those_of_the_run_and_frames_are_called_frames(output):
    html, numbers = report(output)
    run = output.run
    assert (numbers["people.videos"], numbers["people.frames"]) == (run.videos.scored, run.videos.frames) == (2, 36)
    assert numbers["images_listed"] == run.images.listed - run.images.skipped + run.videos.frames == 38
    assert "images and frames</p>" in html
    assert "Images and frames = with a face + without a face + failed." in html
    assert "Look at the images and frames first" in html and ">images<" not in html
    assert numbers["people.changes.put_on"] == sum(len(row["changes"]) for row in rows(output, TRACKS)) == 1
    assert '<data data-of="people.changes.put_on" value="1">1</data> put a mask on.' in html


def test_a_selection_of_days_and_keys_is_of_its_people_alone(output):
    _, numbers = report(output, "--where", "site=south")
    assert (numbers["people.videos"], numbers["people.labelled"], numbers["people.frames"]) == (1, 1, 18)
    assert "people.changes.put_on" not in numbers
    html, numbers = report(output, "--until", "2026-03-02", "--where", "site=south")
    assert not [name for name in numbers if name.startswith("people.")]
    assert 'id="people"' not in html and "images</p>" in html
    with Tables(str(output.folder)) as tables:
        found = read_track_figures(tables, Selection(since=date(2026, 3, 3)), "site")
        assert (found.images, found.frames, found.videos) == (0, 18, 1)
        assert [group.values for group in found.groups] == [("south",)]


def test_brief_tracks_count_for_nobody(score, output, tmp_path):
    again = score(
        tmp_path / "t",
        output.folder.parent / "in",
        template=None,
        faces="detect",
        flags=("--set", "video.frames_per_second=3", "--set", "tracks.min_frames=15"),
    )
    with Tables(str(again.folder)) as tables:
        found = read_track_figures(tables, Selection())
        lengths = [row["frames"] for row in rows(again, TRACKS)]
        assert found.brief == sum(length < 15 for length in lengths) > 0
        assert found.total.tracks == sum(length >= 15 for length in lengths) == sum(again.run.tracks.values()) > 0


def test_the_excel_file_has_a_sheet_of_people(output, tmp_path):
    path = tmp_path / "figures.xlsx"
    assert main(["report", str(output.folder), "--excel", str(path)]) == 0
    head, total, *groups = openpyxl.load_workbook(path)["people"].iter_rows(values_only=True)
    assert head[:3] == ("site", "tracks", "tracks_mask")
    assert total[:2] == ("(all)", 3)
    assert {row[0]: row[1] for row in groups} == {"north": 2, "south": 1}
    with Tables(str(output.folder)) as tables:
        people = read_people(tables, Selection(), "site")
        assert people_sheet(people, tells_incorrect=False)[0] == (
            *("site", "tracks", "tracks_mask", "tracks_no_mask", "tracks_uncertain"),
            *("rate", "rate_low", "rate_high"),
        )


def test_faces_of_videos_have_pictures(output):
    html, _ = report(output, "--faces", "6")
    shown = html.count('src="data:image/jpeg')
    assert shown == html.count("<figcaption>") - html.count('class="people"')
    assert "no picture" not in html
    assert len(rows(output, PREDICTIONS)) > shown > 10
