"""`maskdet diff`: coverage first, then rates, by clusters and by pairs; the file agrees with the terminal."""

from __future__ import annotations

import csv
import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from maskdet.answer_schemas import changes_schema
from maskdet.cli import main
from maskdet.compliance.change import adjust
from tests.outputs import face, write_output

START = datetime(2026, 3, 2, 22, 30, tzinfo=UTC)


def images(seed, rates, days=range(4), cameras=("c1", "c2", "c3"), per_hour=6):
    """Images of sites at three hours of some days; of each, one or two faces."""
    rng, found = random.Random(seed), []
    for site, rate in rates.items():
        for camera in cameras:
            for day in days:
                for hour in range(3):
                    level = min(1, max(0, rng.gauss(rate, 0.15)))
                    for number in range(per_hour):
                        at = START + timedelta(days=day, hours=hour, minutes=number)
                        faces = [
                            face("mask" if rng.random() < level else "no_mask") for _ in range(rng.choice([1, 1, 2]))
                        ]
                        what = rng.choice([faces] * 18 + ["no_face", "failed"])
                        found.append((f"/{site}/{camera}/{day}/{hour}/{number}", (site, camera), at, what))
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diff")
    before, after = images(1, {"a": 0.5, "b": 0.7}), images(2, {"a": 0.85, "c": 0.7}, cameras=("c1", "c2"))
    write_output(folder / "before", before)
    write_output(folder / "after", after, model="m@2")
    return folder, before, after


def diff(*arguments):
    return main.main(["diff", *map(str, arguments)])


def share(rows, **keys):
    chosen = [what for _, (site, _), _, what in rows if not isinstance(what, str) and keys.get("site", site) == site]
    labels = [one["label"] for what in chosen for one in what]
    return labels.count("mask") / len(labels), len(labels)


def test_coverage_comes_first_and_models_that_differ_are_said(outputs, capsys):
    folder, before, after = outputs
    assert diff(folder / "before", folder / "after", "--by", "site") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "coverage"
    assert lines[4].split() == ["images", f"{len(before):,}", f"{len(after):,}", f"{len(after) / len(before) - 1:+.1%}"]
    failed = [sum(what == "failed" for *_, what in rows) for rows in (before, after)]
    assert lines[5].split()[:3] == ["failed", *map(str, failed)]
    text = "\n".join(lines)
    assert text.index("coverage") < text.index("MODELS DIFFER") < text.index("any_mask_rate")
    assert "gone: b   new: c" in text
    assert "gone: c3" in text
    assert "clusters of site x camera x date x hour" in text


def test_the_file_holds_what_the_tables_hold(outputs, tmp_path):
    folder, before, after = outputs
    assert diff(folder / "before", folder / "after", "--by", "site", "--output", tmp_path / "x.parquet") == 0
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.names == changes_schema(["site"]).names
    rows = table.to_pylist()
    assert [(row["scope"], row["site"]) for row in rows] == [("all", None), *(("group", name) for name in "abc")]
    for row, keys in zip(rows, ({}, {"site": "a"}), strict=False):
        (p, n), (q, m) = share(before, **keys), share(after, **keys)
        assert (row["rate_before"], row["faces_labelled_before"]) == (pytest.approx(p), n)
        assert (row["rate_after"], row["faces_labelled_after"]) == (pytest.approx(q), m)
        assert row["difference"] == pytest.approx(q - p)
        assert row["difference_low"] < row["difference_naive_low"] < row["difference"]
    assert rows[2]["rate_after"] is rows[2]["p"] is rows[3]["rate_before"] is None
    assert [row["p_adjusted"] for row in rows[1:]] == adjust([row["p"] for row in rows[1:]], "holm")
    assert rows[0]["p_adjusted"] is None


def test_csv_and_json_say_the_same(outputs, tmp_path):
    folder, *_ = outputs
    for name in ("x.csv", "x.json", "x.parquet"):
        assert diff(folder / "before", folder / "after", "--by", "site", "--output", tmp_path / name) == 0
    expected = pq.read_table(tmp_path / "x.parquet").to_pylist()
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["rates"] == expected
    assert found["keys"]["site"] == {"gone": ["b"], "new": ["c"]}
    assert found["same_model"] is False
    with (tmp_path / "x.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["difference"]) if row["difference"] else None for row in rows] == [
        None if row["difference"] is None else pytest.approx(row["difference"]) for row in expected
    ]


def test_periods_are_days_of_the_time_zone_and_pair_by_camera_and_hour(outputs, tmp_path, capsys):
    folder, before, _ = outputs
    days = ("--before", "..2026-03-03", "--after", "2026-03-04..2026-03-05", "--time-zone", "Asia/Tokyo")
    assert diff(folder / "before", *days, "--output", tmp_path / "x.json") == 0
    found = json.loads((tmp_path / "x.json").read_text())
    # 22:30 in UTC is 7:30 of the next day in Tokyo: day 0 of the images is the 3rd there.
    first, second = ([row for row in before if (row[2] - START).days in span] for span in ((0,), (1, 2)))
    assert found["before"]["counts"]["images_scored"] == sum(not isinstance(what, str) for *_, what in first)
    assert found["rates"][0]["rate_after"] == pytest.approx(share(second)[0])
    assert found["cluster"] == ["site", "camera", "hour"]
    assert found["rates"][0]["pairs"] == 2 * 3 * 3
    assert "before  ..2026-03-03" in capsys.readouterr().out


def test_the_same_photographs_under_two_models_pair_cluster_by_cluster(outputs, tmp_path):
    folder, before, _ = outputs
    changed = [
        (uri, keys, at, what if isinstance(what, str) or number % 9 else [face("mask") for _ in what])
        for number, (uri, keys, at, what) in enumerate(before)
    ]
    write_output(tmp_path / "other", changed)
    assert diff(folder / "before", tmp_path / "other", "--output", tmp_path / "x.parquet") == 0
    [row] = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert row["pairs"] == len(
        {(keys, at.date(), at.hour) for _, keys, at, what in before if not isinstance(what, str)}
    )
    assert row["difference_high"] - row["difference_low"] < 0.6 * (
        row["difference_naive_high"] - row["difference_naive_low"]
    )
    assert row["difference_low"] > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "two outputs, or one with --before and --after"),
        (("--before", "2026-03-02"), "two outputs"),
        (("--before", "2026-02-31", "--after", ".."), "Check the calendar"),
        (("--before", "2026-03-05..2026-03-02", "--after", ".."), "Swap them"),
        (("--before", "2026-03-05", "--after", "2026-03-02..2026-03-04"), "--before: expected days before --after"),
        (("--before", "2019-01-01..2019-12-31", "--after", ".."), "--before: expected days of which"),
        (("--before", "..", "--after", "2031-01-01.."), "--after: expected days of which"),
        (("--before", "..", "--after", "..", "--by", "person"), "--by"),
        (("--before", "..", "--after", "..", "--output", "x.txt"), ".csv, .parquet, .json"),
        (("--before", "..", "--after", "..", "--confidence", "95"), "--confidence"),
    ],
)
def test_mistakes_are_named(outputs, flags, words, capsys):
    folder, *_ = outputs
    assert diff(folder / "before", *flags) == 2
    assert words in capsys.readouterr().err


def test_groups_of_metadata_are_those_of_the_sites_together(outputs, tmp_path, capsys):
    folder, before, after = outputs
    (tmp_path / "sites.csv").write_text("site,region,opened\na,007,2020\nb,007,2021\n")
    flags = ("--metadata", tmp_path / "sites.csv", "--on", "site", "--by", "region", "--output", tmp_path / "x.parquet")
    assert diff(folder / "before", folder / "after", *flags) == 0
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [(row["scope"], row["region"]) for row in rows] == [("all", None), ("group", None), ("group", "007")]
    assert rows[2]["rate_before"] == pytest.approx(share(before)[0])
    assert rows[2]["rate_after"] == pytest.approx(share(after, site="a")[0])
    assert rows[1]["rate_before"] is None  # c, which the file does not name
    assert rows[1]["rate_after"] == pytest.approx(share(after, site="c")[0])
    printed = capsys.readouterr().out.splitlines()
    [head] = [place for place, line in enumerate(printed) if line.split()[:1] == ["region"]]
    assert [line.split()[0] for line in printed[head + 1 : head + 4]] == ["(all)", "(none)", "007"]


@pytest.mark.parametrize(
    ("text", "on", "words"),
    [
        ("site,region\na,1\na,2\n", "site", "twice"),
        ("place,region\na,1\n", "site", "a column 'site'"),
        ("site,region\na,1\n", None, "--metadata and --on"),
    ],
)
def test_metadata_that_cannot_be_joined_is_refused(outputs, tmp_path, text, on, words, capsys):
    folder, *_ = outputs
    (tmp_path / "sites.csv").write_text(text)
    flags = ("--metadata", tmp_path / "sites.csv", *(("--on", on) if on else ()), "--by", "region")
    assert diff(folder / "before", folder / "after", *flags) != 0
    assert words in capsys.readouterr().err
