"""Columns of an image list that are carried into the rows of tables, and keys that a table of metadata joins."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from maskdet.cli import main
from maskdet.explore.access import Gate
from maskdet.explore.app import explorer
from maskdet.report.database import Tables
from maskdet.tables.metadata import read_metadata

ROWS = [
    # name, site, weather, order
    ("a0", "a", "rain", "0017"),
    ("a1", "a", "sun", "18"),
    ("b0", "b", "rain", ""),
    ("b1", "b", "", "20"),
    ("broken", "b", "fog", "21"),
]
CARRIED = ("source.keys=[site]", "source.carry=[weather, order_no]", "failure_budget.max_ratio=1")
SETTINGS = tuple(flag for setting in CARRIED for flag in ("--set", setting))


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("carry")
    lines = ["uri,Site,Weather,order_no,unused"]
    for number, (name, *values) in enumerate(ROWS):
        path = folder / f"{name}.png"
        if name == "broken":
            path.write_bytes(b"no image")
        else:
            Image.new("RGB", (90, 90), (30 * number, 80, 120)).save(path)
        lines.append(",".join([path.name, *values, "x"]))
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def scored(listed, score, tmp_path_factory):
    folder = tmp_path_factory.mktemp("carried") / "tables"
    levels = ("--set", "compliance.levels={weather: [weather], site: [site]}")
    output = score(folder, listed / "images.csv", template=None, faces="whole", flags=(*SETTINGS, *levels))
    assert output.code == 0
    return output


def test_every_row_has_what_the_list_says_of_its_image(scored):
    expected = {name: (site, weather or None, order or None) for name, site, weather, order in ROWS}
    rows = [row for table in ("predictions", "failures") for row in scored.table(table).to_pylist()]
    found = {row["image_uri"].rpartition("/")[2][:-4]: (row["site"], row["weather"], row["order_no"]) for row in rows}
    assert found == expected
    assert "unused" not in rows[0]


def test_neither_folders_nor_clusters_are_made_of_them_but_levels_may_be(scored):
    folders = {path.parent.name for path in (scored.folder / "predictions").rglob("*.parquet")}
    assert folders == {"site-a", "site-b"}
    assert scored.run.settings["compliance"]["cluster"] == ["site"]
    table = pq.read_table(scored.folder / "compliance" / "level=weather").to_pylist()
    assert {row["weather"]: (row["images_scored"], row["images_failed"]) for row in table} == {
        None: (1, 0),
        "fog": (0, 1),
        "rain": (2, 0),
        "sun": (1, 0),
    }


def test_a_second_run_keeps_them_and_one_that_carries_others_is_refused(scored, listed, score, capsys):
    again = score(scored.folder, listed / "images.csv", template=None, faces="whole", flags=SETTINGS)
    assert (again.code, again.run.images_scored_now) == (0, 0)
    other = [flag.replace("weather, ", "") for flag in SETTINGS]
    refused = score(scored.folder, listed / "images.csv", template=None, faces="whole", flags=other)
    assert refused.code == 8
    assert "carried" in capsys.readouterr().err


def test_a_folder_has_no_columns_to_carry(listed, score, tmp_path, capsys):
    output = score(tmp_path / "t", listed, template=None, flags=("--set", "source.carry=[weather]"))
    assert output.code == 2
    assert "source.carry: expected an image list" in capsys.readouterr().err
    missing = ("--set", "source.carry=[wether]")
    assert score(tmp_path / "t", listed / "images.csv", template=None, flags=missing).code == 3
    assert "a column 'wether' (source.carry)" in capsys.readouterr().err


def test_pages_group_by_places_and_select_by_what_is_carried(scored, tmp_path, capsys):
    page = tmp_path / "r.html"
    assert main.main(["report", str(scored.folder), "--output", str(page), "--where", "weather=rain"]) == 0
    html = page.read_text()
    assert re.search(r'data-of="images_listed" value="2"', html)
    assert "By site" in html and "By weather" not in html
    assert main.main(["report", str(scored.folder), "--output", str(page), "--by", "weather"]) == 2
    capsys.readouterr()
    flags = ("--by", "weather", "--output", str(tmp_path / "d.json"))
    assert main.main(["diff", str(scored.folder), str(scored.folder), *flags]) == 0
    groups = json.loads((tmp_path / "d.json").read_text())
    assert [row["weather"] for row in groups["rates"]] == [None, None, "fog", "rain", "sun"]
    assert set(groups["keys"]) == {"site"} and groups["cluster"] == ["site"]


@pytest.fixture
def sites(tmp_path):
    (tmp_path / "sites.csv").write_text("site,region,floors\na,007,2\nz,009,1\n")
    return tmp_path / "sites.csv"


def test_a_report_has_groups_of_metadata(scored, sites, tmp_path, capsys):
    command = ["report", str(scored.folder), "--output", str(tmp_path / "r.html"), "--metadata", str(sites), "--on"]
    assert main.main([*command, "site", "--by", "region"]) == 0
    html = (tmp_path / "r.html").read_text()
    images = dict(re.findall(r'data-of="group\.([^"]+)\.images" value="(\d+)"', html))
    assert images == {"007": "2", "(none)": "3"}  # site a's, and those of b, which the file does not name
    assert main.main([*command, "site", "--where", "region=007"]) == 0
    assert 'data-of="images_listed" value="2"' in (tmp_path / "r.html").read_text()
    assert "By site" in (tmp_path / "r.html").read_text()
    query = re.search(r"<pre><code>(.*?)</code>", html, re.DOTALL)[1]
    assert "region" not in query  # which the files do not have
    capsys.readouterr()
    assert main.main([*command[:-1]]) == 2
    assert "--metadata and --on" in capsys.readouterr().err
    (tmp_path / "other.csv").write_text("weather,region\nrain,1\n")
    assert main.main([*command[:-2], str(tmp_path / "other.csv"), "--on", "weather"]) == 2
    assert "--on: expected one of the keys ['site']" in capsys.readouterr().err
    (tmp_path / "taken.csv").write_text("Site;Weather;Region\na;1;cold\n")
    taken = [*command[:-2], str(tmp_path / "taken.csv"), "--on", "site"]
    assert main.main([*taken, "--by", "region"]) == 0
    images = re.findall(r'data-of="group\.([^"]+)\.images" value="(\d+)"', (tmp_path / "r.html").read_text())
    assert dict(images) == {"cold": "2", "(none)": "3"}
    capsys.readouterr()
    assert main.main([*taken, "--by", "region", "--where", "weather=1"]) == 2
    assert "columns that the tables do not have, received 'weather'" in capsys.readouterr().err
    for column, code in (("region", 0), ("weather", 2)):
        both = ["diff", str(scored.folder), str(scored.folder), *taken[-4:], "--by", column]
        assert main.main(both) == code
        said = capsys.readouterr()
        assert code == 0 or "columns that the tables do not have, received 'weather'" in said.err


def test_a_column_that_the_tables_have_is_left_out_of_the_explorer(scored, tmp_path):
    (tmp_path / "taken.csv").write_text("site,weather,region\na,1,cold\n")
    with Tables(str(scored.folder), read_metadata(str(tmp_path / "taken.csv"), "site")) as tables:
        assert (tables.keys, tables.left_out) == (("site", "region"), ("weather",))
        assert tables.rows("SELECT DISTINCT region FROM faces WHERE site = 'a'") == [("cold",)]


def test_the_explorer_filters_by_metadata_and_shows_what_is_carried(scored, sites):
    metadata = read_metadata(str(sites), "site")
    with Tables(str(scored.folder), metadata) as tables:
        gate = Gate(8765)
        origin = "http://127.0.0.1:8765"
        client = TestClient(explorer(tables, gate), base_url=origin, headers={"origin": origin})
        client.get(f"/?token={gate.token}")
        keys = {key["name"]: key["values"] for key in client.get("/api/start").json()["keys"]}
        assert keys == {"site": ["a", "b"], "region": ["007", None], "floors": ["2", None]}
        bars = client.get("/api/view?by=region").json()["bars"]
        assert {bar["value"]: bar["images"] for bar in bars} == {"007": 2, None: 3}
        found = client.get("/api/faces?key.region=007").json()
        assert found["total"] == 2
        [first] = [face for face in found["faces"] if face["uri"].endswith("a0.png")]
        assert first["keys"] == {"site": "a", "region": "007", "floors": "2"}
        assert first["carried"] == {"weather": "rain", "order_no": "0017"}
        assert client.get("/api/faces?key.weather=rain").status_code == 400
        file, number = map(int, first["id"].rpartition("faces-")[2].split("-"))
        assert tables.row("faces", file, number)["region"] == "007"
