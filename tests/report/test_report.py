"""Every number on a report's page, computed anew from the Parquet files by other means."""

import datetime as dt
import hashlib
import io
import json
import math
import re
from html.parser import HTMLParser

import duckdb
import numpy as np
import pandas as pd
import pytest
from drawn_output import DECISION, FIRST, KEYS, QUOTES, SCRIPT, ZONE, drawn_rows, face, image, write_drawn
from PIL import Image
from scipy import stats

from maskdet.cli.main import main
from maskdet.errors import FailureCode
from maskdet.report import compliance_page, figures
from maskdet.report.database import Selection, Tables
from maskdet.report.failure_words import FAILURE_WORDS
from maskdet.tables.snapshot import table_files

ALL = Selection()
LABELS = ("mask", "incorrect", "no_mask", "uncertain")


class Numbers(HTMLParser):
    """Collects the contents of data elements, and every element's name and attributes."""

    def __init__(self, html):
        super().__init__()
        self.found, self.texts, self.tags, self._of = {}, {}, [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "data":
            given = dict(attributes)
            self._of = given["data-of"]
            value = None if given["value"] == "" else float(given["value"])
            assert self.found.get(self._of, value) == value, f"{self._of} has two values"
            self.found[self._of], self.texts[self._of] = value, ""

    def handle_data(self, data):
        if self._of is not None:
            self.texts[self._of] += data

    def handle_endtag(self, tag):
        if tag == "data":
            self._of = None


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    # DuckDB takes brackets, stars and question marks in names for patterns.
    root = tmp_path_factory.mktemp("report") / "out[1]*?'s"
    write_drawn(root)
    return str(root)


@pytest.fixture(scope="module")
def html(output):
    return page(output)


def page(output, selection=ALL, by=None):
    with Tables(output) as tables:
        return compliance_page.render(tables, figures.read_figures(tables, selection, by), selection, "A <b>title</b>")


def frames(output):
    """All rows, one frame: faces, images without one, failures; with local days and hours."""
    parts = []
    for kind in ("predictions", "no_face", "failures"):
        frame = pd.concat([pd.read_parquet(file) for file in table_files(output, kind)])
        parts.append(frame.assign(kind=kind))
    rows = pd.concat(parts, ignore_index=True)
    local = rows["captured_at"].dt.tz_convert(ZONE)
    rows["day"], rows["hour"] = local.dt.date, local.dt.hour
    rows["image"] = (rows["kind"] != "predictions") | (rows["face_index"] == 0)
    return rows


CLUSTER = ["site", "camera", "day", "hour"]


def share_of(rows, cluster=CLUSTER):
    """Rate, interval and counts of some rows: Korn and Graubard's effective numbers, written out."""
    known = rows[rows["label"].isin(["mask", "incorrect", "no_mask"])]
    n, x = len(known), int((known["label"] == "mask").sum())
    clusters = known.groupby(cluster, dropna=False)["label"]
    sizes, hits = clusters.size().to_numpy(), clusters.apply(lambda one: (one == "mask").sum()).to_numpy()
    m = len(sizes)
    low = high = None
    if m >= 2:
        p = x / n
        if x in (0, n):
            effective = n**2 / (sizes**2).sum()
        else:
            variance = m / (m - 1) * ((hits - p * sizes) ** 2).sum() / n**2
            effective = min(n, p * (1 - p) / variance) if variance > 0 else n
        t = stats.t.ppf(0.975, m - 1)
        # Ends of Wilson's interval are the roots of a quadratic equation.
        roots = np.roots([1 + t**2 / effective, -(2 * p + t**2 / effective), p**2])
        low, high = sorted(np.clip(np.real(roots), 0, 1))
    return {"share": x / n if n else None, "low": low, "high": high, "faces": n, "successes": x, "clusters": m}


def images_of(rows):
    whole = rows[rows["image"]]
    kinds = whole["kind"].value_counts()
    read = kinds.get("predictions", 0) + kinds.get("no_face", 0)
    return (
        len(whole),
        kinds.get("no_face", 0),
        kinds.get("failures", 0),
        kinds.get("no_face", 0) / read if read else None,
    )


def name_of(value):
    return "(none)" if pd.isna(value) else value


def expected_rates(rows):
    found = {}
    places = [("total", rows)]
    places += [(f"group.{name_of(site)}", part) for site, part in rows.groupby("site", dropna=False)]
    for name, part in places:
        rate, (listed, _, _, faceless) = share_of(part), images_of(part)
        found |= {f"{name}.{key}": rate[key] for key in ("share", "faces")}
        found |= interval(f"{name}.interval", rate)
        found |= {f"{name}.images": listed, f"{name}.no_face": faceless}
        found |= {f"{name}.{label}": int((part["label"] == label).sum()) for label in LABELS}
    for site, part in rows.groupby("site", dropna=False):
        name = f"panel.{name_of(site)}"
        found[f"{name}.share"] = share_of(part)["share"]
        for camera, of_camera in part.groupby("camera", dropna=False):
            rate = share_of(of_camera)
            found |= {f"{name}.{camera}.share": rate["share"], **interval(f"{name}.{camera}.interval", rate)}
        for day, of_day in part.groupby("day"):
            rate = share_of(of_day)
            found |= {f"{name}.{day}.{key}": rate[key] for key in ("share", "faces")}
    return found


def interval(name, rate):
    return {} if rate["low"] is None else {f"{name}.low": rate["low"], f"{name}.high": rate["high"]}


def expected_days(rows):
    found = {}
    for day, part in rows.groupby("day"):
        rate, (listed, faceless, failed, _) = share_of(part), images_of(part)
        name = f"trend.{day}"
        found |= {f"{name}.{key}": rate[key] for key in ("share", "faces")} | interval(f"{name}.interval", rate)
        found |= {f"{name}.images": listed, f"{name}.no_face": faceless, f"{name}.failed": failed}
        found[f"{name}.uncertain"] = int((part["label"] == "uncertain").sum())
    days = sorted(rows["day"].dropna().unique())
    every = [days[0] + dt.timedelta(days=number) for number in range((days[-1] - days[0]).days + 1)]
    for site, part in rows.groupby("site", dropna=False):
        seen = part[part["image"]].groupby("day").size()
        found |= {f"coverage.{name_of(site)}.{day}": int(seen.get(day, 0)) for day in every}
    return found


def expected_change(rows):
    last = rows["day"].dropna().max()
    week, found = dt.timedelta(days=7), {}
    after = rows[rows["day"] > last - week]
    before = rows[(rows["day"] > last - 2 * week) & (rows["day"] <= last - week)]
    places = [("total", before, after)]
    for site in rows["site"].unique():
        sides = [side[side["site"].isna() if pd.isna(site) else side["site"] == site] for side in (before, after)]
        places.append((name_of(site), *sides))
    for name, *sides in places:
        # A camera at an hour of the day is one cluster, whatever the day.
        rates = [share_of(side, CAMERA_HOUR) for side in sides]
        for when, side, rate in zip(("before", "after"), sides, rates, strict=True):
            listed, _, _, faceless = images_of(side)
            values = {"images": listed, "no_face": faceless, "share": rate["share"]}
            found |= {f"change.{name}.{when}.{key}": value for key, value in values.items()}
        (p, low, high), (q, lower, upper) = ((rate["share"], rate["low"], rate["high"]) for rate in rates)
        r = correlation(*sides)
        below, above = ((q - lower, high - p), (upper - q, p - low))
        found[f"change.{name}.difference"] = q - p
        found[f"change.{name}.interval.low"] = q - p - math.sqrt(np.dot(below, below) - 2 * r * math.prod(below))
        found[f"change.{name}.interval.high"] = q - p + math.sqrt(np.dot(above, above) - 2 * r * math.prod(above))
    return found


CAMERA_HOUR = ["site", "camera", "hour"]


def correlation(*sides):
    """Correlation of two rates over their clusters: of what each cluster adds to a rate, to first order."""
    added = []
    for side in sides:
        known = side[side["label"].isin(["mask", "incorrect", "no_mask"])]
        residual = (known["label"] == "mask") - (known["label"] == "mask").mean()
        added.append(residual.groupby([known[key].fillna("") for key in CAMERA_HOUR]).sum())
    both = added[0].index.intersection(added[1].index)
    if len(both) < 2:
        return 0.0
    return (added[0][both] * added[1][both]).sum() / math.sqrt((added[0] ** 2).sum() * (added[1] ** 2).sum())


def expected_rest(rows):
    rate, (listed, faceless, failed, faceless_share) = share_of(rows), images_of(rows)
    uncertain = int((rows["label"] == "uncertain").sum())
    found = {"groups": rows["site"].nunique(), "images_listed": listed, "no_face_share": faceless_share}
    found |= {"rate.share": rate["share"], "rate.faces": rate["faces"], "rate.successes": rate["successes"]}
    found |= {"clusters": rate["clusters"], **interval("rate.interval", rate)}
    counts = {"images_listed": listed, "images_scored": listed - faceless - failed, "images_no_face": faceless}
    counts |= {"images_failed": failed, "faces": rate["faces"] + uncertain, "faces_uncertain": uncertain}
    found |= {f"counts.{name}": value for name, value in counts.items()}
    unknown = {"uncertain": uncertain, "no_face": faceless, "failed": failed, "all": uncertain + faceless + failed}
    for name, number in unknown.items():
        total = rate["faces"] + number
        found |= {f"bounds.{name}.unknown": number, f"bounds.{name}.low": rate["successes"] / total}
        found[f"bounds.{name}.high"] = (rate["successes"] + number) / total
    found["undated"] = int((rows["image"] & rows["day"].isna()).sum())
    for code, images in rows["code"].value_counts().items():
        found[f"failures.{code}"] = images
    worn = rows["probability_mask"].astype(float) + rows["probability_incorrect"].astype(float)
    for label in LABELS:
        heights, edges = np.histogram(worn[rows["label"] == label], bins=20, range=(0, 1))
        found |= {f"bins.{label}.{number / 20}": height for number, height in enumerate(heights)}
        assert len(edges) == 21
    last = rows.groupby(["site", "camera"], dropna=False)["day"].agg(lambda days: days.dropna().max())
    if silent := int((last < rows["day"].dropna().max()).sum()):
        found["silent"] = silent
    return found


def test_every_number_on_the_page_comes_from_the_tables(output, html):
    rows = frames(output)
    expected = {**expected_rates(rows), **expected_days(rows), **expected_change(rows), **expected_rest(rows)}
    expected |= {key.replace("change.total", "change"): expected[key] for key in expected if "total.differ" in key}
    ends = ("change.total.interval.low", "change.total.interval.high")
    expected |= {key.replace("change.total", "change"): expected[key] for key in ends}
    found = Numbers(html).found
    hundred = [found.pop(f"hundred.{label}") for label in LABELS[:3]]
    assert found.keys() == expected.keys()
    differing = {
        name: (value, expected[name])
        for name, value in found.items()
        if (value is None) != (expected[name] is None) or (value is not None and abs(value - expected[name]) > 1e-9)
    }
    assert not differing
    assert sum(hundred) == 100 and abs(hundred[0] - 100 * found["rate.share"]) <= 0.5


def test_the_change_is_that_of_diff_and_the_page_says_so(output, html, tmp_path):
    days = frames(output)["day"].dropna()
    week, last = dt.timedelta(days=6), days.max()
    periods = ((last - 2 * week - dt.timedelta(days=1), last - week - dt.timedelta(days=1)), (last - week, last))
    flags = [f"--{name}={first}..{end}" for name, (first, end) in zip(("before", "after"), periods, strict=True)]
    made = tmp_path / "diff.json"
    assert main(["diff", output, *flags, "--by", "site", "--rate", "correct_rate", "--output", str(made)]) == 0
    found, rows = Numbers(html).found, json.loads(made.read_text())["rates"]
    assert len(rows) > 4
    for row in rows:
        name = "total" if row["scope"] == "all" else name_of(row["site"])
        values = {"difference": "difference", "interval.low": "difference_low", "interval.high": "difference_high"}
        for own, of_diff in values.items():
            assert found[f"change.{name}.{own}"] == pytest.approx(row[of_diff], abs=1e-12)
    assert f"faces of one camera and hour of the day are alike, and {rows[0]['pairs']} such clusters are in" in html
    assert "correlated by pairs" in rows[0]["method"]


def test_texts_of_numbers_are_their_values(html):
    numbers = Numbers(html)
    for name, value in numbers.found.items():
        text = numbers.texts[name].replace(",", "").replace("\N{MINUS SIGN}", "-").removesuffix(" points")
        if name.startswith("coverage.") or value is None:
            continue
        parts = re.fullmatch(r"([<>]?)([+-]?[\d.]+)%?", text)
        assert parts, (name, text)
        in_percent = "%" in text or name.endswith((".low", ".high")) or "difference" in name
        assert float(parts[2]) == pytest.approx(value * (100 if in_percent else 1), abs=0.51), (name, text, value)


def test_names_never_become_markup(html):
    tags = Numbers(html).tags
    assert not [tag for tag, _ in tags if tag in ("script", "img", "b")]
    assert not [(tag, name) for tag, given in tags for name in given if name.startswith("on")]
    assert SCRIPT not in html and QUOTES not in html and "{{ 7 * 7 }}{% raw %}&amp;amp;" in html
    assert "A &lt;b&gt;title&lt;/b&gt;" in html


def test_a_page_asks_nothing_outside_itself(html):
    assert "default-src 'none'" in html
    names = ("src", "href", "action", "srcset", "poster")
    links = [given[name] for _, given in Numbers(html).tags for name in names if name in given]
    assert links and all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"@import|url\(|https?://", html)


def test_the_same_tables_give_the_same_page(output, html):
    assert page(output) == html
    assert len(html.encode()) < 1_000_000


def test_tables_of_a_store_are_fetched(output, html, monkeypatch):
    import maskdet.report.database as database

    fetched = []
    read = database.storage.read_bytes
    monkeypatch.setattr(database.storage, "is_local", lambda uri: uri != output)
    monkeypatch.setattr(database.storage, "read_bytes", lambda uri: fetched.append(uri) or read(uri))
    with Tables(output) as tables:
        assert figures.read_figures(tables, Selection()).total.counts.faces == Numbers(html).found["counts.faces"]
    assert [uri for uri in fetched if uri.endswith(".pq")]


def test_a_selection_is_of_keys_and_local_days(output):
    rows = frames(output)
    since, until = dt.date(2026, 3, 29), dt.date(2026, 4, 2)
    found = Numbers(page(output, Selection({"site": ("north", None)}, since, until))).found
    chosen = rows[(rows["site"].isna() | (rows["site"] == "north")) & (rows["day"] >= since) & (rows["day"] <= until)]
    assert found["images_listed"] == images_of(chosen)[0]
    assert found["rate.share"] == share_of(chosen)["share"] and found["counts.images_failed"] == images_of(chosen)[2]
    assert {name.split(".")[1] for name in found if name.startswith("group.")} == {"north", "(none)"}


def test_groups_are_of_the_keys_asked_for(output):
    found = Numbers(page(output, by=["camera"])).found
    rows = frames(output)
    assert found["group.gate.share"] == share_of(rows[rows["camera"] == "gate"])["share"]
    assert found["groups"] == 2


def test_the_query_on_the_page_gives_its_numbers(tmp_path):
    write_drawn(tmp_path / "plain")
    with Tables(str(tmp_path / "plain")) as tables:
        found = figures.read_figures(tables, Selection())
        query = compliance_page.query(tables, found)
    rows = duckdb.sql(query).fetchall()
    assert rows == [(one.values[0], one.rate.faces, one.rate.successes) for one in found.groups]


def test_a_flat_folder_has_no_clusters_and_says_so(tmp_path):
    faces = [face(image(f"/flat/{n}.jpg", None, None, None), 0, 0.9 if n < 17 else 0.1, 0.0) for n in range(20)]
    write_drawn(tmp_path / "flat", ([{**one} for one in faces], [], []), keys=())
    html = page(str(tmp_path / "flat"))
    found = Numbers(html).found
    wilson = stats.binomtest(17, 20).proportion_ci(method="wilson")
    assert (found["rate.interval.low"], found["rate.interval.high"]) == pytest.approx(tuple(wilson), abs=1e-12)
    assert "takes faces for independent" in html and "trend." not in "".join(found)


def test_two_classes_are_about_any_mask(tmp_path):
    faces = [face(image(f"/two/{n}.jpg", None, "a", None), 0, 0.9 if n < 3 else 0.1, 0.0) for n in range(4)]
    faces = [{**one, "probability_incorrect": None} for one in faces]
    decision = DECISION.model_copy(update={"incorrect_from": None})
    write_drawn(tmp_path / "two", (faces, [], []), classes=("no_mask", "mask"), decision=decision)
    html = page(str(tmp_path / "two"))
    assert "of faces wore a mask;" in html and "incorrectly" not in html and "wore a mask correctly" not in html
    assert Numbers(html).found["rate.share"] == 0.75


def test_an_output_without_faces_has_no_rate(tmp_path):
    faceless = [image(f"/none/{n}.jpg", None, "a", "b") for n in range(3)]
    write_drawn(tmp_path / "none", ([], faceless, []))
    html = page(str(tmp_path / "none"))
    assert "No face could be labelled" in html
    assert Numbers(html).found["counts.images_no_face"] == 3


def test_weeks_and_months_where_days_are_many(tmp_path):
    for days, unit in ((60, "week"), (600, "month")):
        write_drawn(tmp_path / unit, drawn_rows(days=days) if unit == "week" else sparse_rows(days))
        with Tables(str(tmp_path / unit)) as tables:
            found = figures.read_figures(tables, Selection())
        rows = frames(str(tmp_path / unit))
        days_of = pd.to_datetime(rows["day"])
        firsts = days_of.dt.to_period("W-SUN" if unit == "week" else "M").dt.start_time.dt.date
        for group in found.trend:
            assert group.rate.share == share_of(rows[firsts == group.values[0]])["share"]
        assert found.unit == unit and {group.values[0] for group in found.trend} == set(firsts.dropna())
        assert figures.periods(found)[0] == found.trend[0].values[0]


def sparse_rows(days):
    faces, faceless, failures = drawn_rows(days=8)
    first, factor = FIRST, days // 8

    def stretched(row):
        when = row["captured_at"]
        return {**row, "captured_at": None if when is None else first + (when - first) * factor}

    return [stretched(row) for row in faces], faceless, failures


def test_a_lost_stretch_of_a_video_is_as_many_images_as_it_has_frames(tmp_path):
    one = image("/videos/gate.mp4", None, "north", "gate")
    lost = {**one, "stage": "decode", "code": "corrupt_video", "message": "", "attempts": 1, "frame_time_us": 0}
    write_drawn(tmp_path / "out", ([face(one, 0, 0.9, 0.0)], [], [{**lost, "frames": 25}, {**lost, "frames": None}]))
    found = Numbers(page(str(tmp_path / "out"))).found
    assert (found["counts.images_failed"], found["failures.corrupt_video"], found["images_listed"]) == (26, 26, 27)


def test_clusters_are_those_of_the_run(tmp_path):
    # The run's settings say what defines a cluster; here it is the camera's name and the day.
    source = {"keys": KEYS, "captured_at_column": "taken"}
    settings = {"source": source, "compliance": {"cluster": ["camera", "date"]}}
    write_drawn(tmp_path / "out", drawn_rows(days=30), settings=settings)
    rows = frames(str(tmp_path / "out"))
    known = rows[rows["label"].isin(["mask", "incorrect", "no_mask"])]
    hits = (known["label"] == "mask").groupby([known["camera"], known["day"]], dropna=False)
    sizes, sums = hits.size().to_numpy(), hits.sum().to_numpy()
    n, p, m = sizes.sum(), sums.sum() / sizes.sum(), len(sizes)
    effective = min(n, p * (1 - p) / (m / (m - 1) * ((sums - p * sizes) ** 2).sum() / n**2))
    t = stats.t.ppf(0.975, m - 1)
    roots = np.roots([1 + t**2 / effective, -(2 * p + t**2 / effective), p**2])
    html = page(str(tmp_path / "out"))
    found = Numbers(html).found
    assert found["clusters"] == m and "faces of one camera and date count as alike" in html
    assert [found["rate.interval.low"], found["rate.interval.high"]] == pytest.approx(sorted(np.real(roots)))


def test_the_rate_is_freed_of_errors_that_are_known(tmp_path):
    errors = {"any_mask": [95, 100, 90, 100], "correct": [180, 200, 95, 100], "refused": None}
    write_drawn(tmp_path / "out", errors=errors)
    found = Numbers(page(str(tmp_path / "out"))).found
    # Rogan and Gladen: (p + Sp - 1) / (Se + Sp - 1), with Se = .9 and Sp = .95.
    assert found["corrected.share"] == pytest.approx((found["rate.share"] + 0.95 - 1) / (0.9 + 0.95 - 1))
    assert found["corrected.interval.low"] < found["corrected.share"] < found["corrected.interval.high"]
    write_drawn(tmp_path / "none", errors={**errors, "refused": "the thresholds are not the bundle's"})
    html = page(str(tmp_path / "none"))
    assert "uncorrected for its errors" in html and "corrected.share" not in html


def test_faces_are_shown_only_when_asked_for(tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for number, (mask, incorrect) in enumerate(((0.9, 0.0), (0.1, 0.0), (0.2, 0.6))):
        path, stream = folder / f"{number}<i>.png", io.BytesIO()
        Image.new("RGB", (64, 64), (40 * number, 90, 200)).save(stream, "PNG")
        path.write_bytes(stream.getvalue())
        row = face(image(str(path), None, SCRIPT, "gate"), 0, mask, incorrect)
        rows.append({**row, "content_sha256": hashlib.sha256(stream.getvalue()).hexdigest()})
    rows.append(face(image(str(folder / "gone.png"), None, "x", "y"), 0, 0.05, 0.0))
    write_drawn(tmp_path / "out", (rows, [], []))
    assert main(["report", str(tmp_path / "out")]) == 0
    target = tmp_path / "out" / "report.html"
    assert "data:image" not in target.read_text("utf-8") and "25.0%" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "out"), "--faces", "3", "--output", str(tmp_path / "faces.html")]) == 0
    html = (tmp_path / "faces.html").read_text("utf-8")
    pictures = [given["src"] for tag, given in Numbers(html).tags if tag == "img"]
    # One of each label, and the three least sure; the fourth face's image is gone.
    assert len(pictures) == 3 + 3
    assert all(one.startswith("data:image/jpeg;base64,") for one in pictures)
    assert "gone since it was scored" in html and SCRIPT not in html


def test_the_excel_file_has_the_figures_of_the_page(output, html, tmp_path):
    target = tmp_path / "figures.xlsx"
    given = ["--excel", str(target), "--output", str(tmp_path / "page.html")]
    assert main(["report", output, *given]) == 0
    sheets, found = pd.read_excel(target, sheet_name=None, keep_default_na=False), Numbers(html).found
    assert list(sheets) == ["all", "by day", "by site", "by site and camera", "change", "failures"]
    assert sheets["all"]["rate"].tolist() == pytest.approx([found["rate.share"]])
    assert sheets["all"]["faces"].tolist() == [found["counts.faces"]]
    for _, row in sheets["by site"].iterrows():
        name = row["site"] or "(none)"
        of_page = (found[f"group.{name}.share"], found[f"group.{name}.interval.low"])
        assert (row["rate"], row["rate_low"]) == pytest.approx(of_page)
    days = sheets["by day"]["day"].dt.date
    assert [found[f"trend.{day}.images"] for day in days] == sheets["by day"]["images_listed"].tolist()
    cameras = sheets["by site and camera"]
    places = zip(cameras["site"], cameras["camera"], strict=True)
    of_page = [found[f"panel.{site or '(none)'}.{camera}.share"] for site, camera in places]
    assert cameras["rate"].tolist() == pytest.approx(of_page)
    change = sheets["change"]
    assert change["difference"].tolist()[0] == pytest.approx(found["change.total.difference"])
    assert dict(zip(sheets["failures"]["code"], sheets["failures"]["images"], strict=True)) == {
        name.removeprefix("failures."): value for name, value in found.items() if name.startswith("failures.")
    }


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--by", "sight"], 2, "--by: expected one or two of the keys ['site', 'camera'], received ['sight']"),
        (["--where", "north"], 2, "--where: expected key=value, received 'north'"),
        (["--where", "sight=1"], 2, "expected one of ['site', 'camera'], received 'sight'"),
        (["--faces", "99"], 2, "--faces: expected 1 to 24, received 99"),
    ],
)
def test_what_cannot_be_reported_is_said(output, tmp_path, capsys, flags, code, message):
    assert main(["report", output, "--output", str(tmp_path / "page.html"), *flags]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("flag", ["--output", "--excel"])
def test_a_folder_where_a_file_is_to_be_written_is_told(output, tmp_path, flag, capsys):
    (tmp_path / "folder").mkdir()
    flags = ["--output", str(tmp_path / "page.html")] if flag == "--excel" else []
    assert main(["report", output, *flags, flag, str(tmp_path / "folder")]) == 5
    said = f"cannot write {tmp_path}/folder: expected the name of a file, received 'a folder'. Name a file in it."
    assert capsys.readouterr().err == f"maskdet report: {said}\n"
    assert list((tmp_path / "folder").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_output_without_a_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 3
    assert "Run maskdet score first" in capsys.readouterr().err


def test_every_failure_has_words():
    assert set(FAILURE_WORDS) == set(FailureCode)


def test_small_groups_that_the_tables_hide_are_shown_only_where_asked_for(tmp_path, capsys):
    write_drawn(tmp_path / "tables", settings={"privacy": {"min_cell": 5}})
    page_file = tmp_path / "report.html"
    command = ["report", str(tmp_path / "tables"), "--output", str(page_file)]
    assert main(command) == 2
    assert "privacy.min_cell = 5" in capsys.readouterr().err
    assert not page_file.exists()
    assert main([*command, "--small-groups"]) == 0
    assert page_file.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--since", "2026-04-02", "--until", "2026-04-01"), "--since: expected a day that is not after --until 2026"),
        (("--where", "site=nroth"), "none of site=nroth"),
        (("--since", "2027-01-01"), "none of since 2027-01-01"),
        (("--where", "site=north", "--until", "2020-01-01"), "none of site=north, until 2020-01-01"),
    ],
)
def test_a_selection_without_images_is_a_mistake(output, tmp_path, flags, words, capsys):
    assert main(["report", output, "--output", str(tmp_path / "report.html"), *flags]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith(("maskdet report: --since: ", "maskdet report: the selection: expected one with images"))
    if "Swap" not in said:
        days = frames(output)["day"].dropna()
        assert f"They are of {days.min()} to {days.max()}." in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--sheet", "-1"), "--sheet: expected 1 to 200"),
        (("--sheet", "2", "--where", "site"), "--where: expected key=value"),
        (("--sheet", "2", "--where", "planet=mars"), "one of the keys"),
        (("--sheet", "2", "--sheet-output", "sheet.jpg"), "a name that ends in .png"),
        (("--rows", "-1"), "--rows: expected 0 or more"),
    ],
)
def test_inspect_refuses_before_it_prints_anything(output, flags, said, capsys):
    assert main(["inspect", output, *flags]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err


def test_a_sheet_of_some_keys_shows_their_rows_and_says_where_each_was_taken(output, tmp_path, capsys):
    page_file = tmp_path / "sheet.png"
    command = ["inspect", output, "--sheet", "200", "--sheet-output", str(page_file)]
    assert main([*command, "--where", "site=north", "--where", "camera=gate"]) == 0
    said = capsys.readouterr().out
    every = frames(output)
    wanted = every[(every["site"] == "north") & (every["camera"] == "gate") & (every["kind"] != "failures")]
    random = said.split("random faces")[1]
    assert random.startswith(f" (seed 0): {min(200, (wanted['kind'] == 'predictions').sum())} of")
    listed = re.findall(r"  (/photos/\S+\.jpg)  north · gate · (\d{4}-\d\d-\d\d \d\d:\d\dZ)", said)
    assert {uri for uri, _ in listed} <= set(wanted["image_uri"])
    assert len(listed) > 5
    assert main([*command, "--where", "planet=mars"]) == 2
    assert "one of the keys" in capsys.readouterr().err
