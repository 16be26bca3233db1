"""The explorer's answers, computed from the Parquet files by other means, and what it refuses."""

import hashlib
import io
import json

import openpyxl
import pandas as pd
import pytest
from drawn_output import KEYS, QUOTES, SCRIPT, ZONE, drawn_rows, face, image, write_drawn
from PIL import Image
from starlette.testclient import TestClient

from maskdet.compliance.corrections import Corrections
from maskdet.errors import ConfigError
from maskdet.explore.access import HEADERS, Gate
from maskdet.explore.app import explorer, serve
from maskdet.explore.questions import PAGE_FACES
from maskdet.report import figures
from maskdet.report.database import Selection, Tables
from maskdet.tables.layout import read_table
from maskdet.tables.snapshot import table_files

PORT = 8765
ORIGIN = f"http://127.0.0.1:{PORT}"


def client_of(tables, **gate):
    door = Gate(PORT, **gate)
    client = TestClient(explorer(tables, door), base_url=ORIGIN, headers={"origin": ORIGIN}, follow_redirects=False)
    client.door = door
    return client


def entered(tables):
    client = client_of(tables)
    assert client.get(f"/?token={client.door.token}").status_code == 303
    return client


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    root = tmp_path_factory.mktemp("explore") / "tables"
    write_drawn(root)
    return str(root)


@pytest.fixture(scope="module")
def client(output):
    with Tables(output) as tables:
        yield entered(tables)


@pytest.fixture(scope="module")
def rows(output):
    frame = pd.concat([pd.read_parquet(file) for file in table_files(output)], ignore_index=True)
    local = frame["captured_at"].dt.tz_convert(ZONE)
    return frame.assign(
        worn=frame["probability_mask"].astype(float) + frame["probability_incorrect"].astype(float),
        day=local.dt.date.astype(str),
        hour=local.dt.hour,
    )


def faces_of(client, **asked):
    found, offset = [], 0
    while True:
        answer = client.get("/api/faces", params={**asked, "offset": offset}).json()
        found += answer["faces"]
        offset += PAGE_FACES
        if offset >= answer["total"]:
            assert len(found) == answer["total"]
            return found


def identity(frame):
    return set(zip(frame["image_uri"], frame["face_index"], strict=True))


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({}, lambda rows: rows),
        ({"key.site": SCRIPT}, lambda rows: rows[rows["site"] == SCRIPT]),
        ({"key.site": ["north", QUOTES]}, lambda rows: rows[rows["site"].isin(["north", QUOTES])]),
        ({"none.site": ""}, lambda rows: rows[rows["site"].isna()]),
        ({"key.site": "north", "key.camera": "gate"}, lambda r: r[(r["site"] == "north") & (r["camera"] == "gate")]),
        ({"label": ["incorrect", "uncertain"]}, lambda rows: rows[rows["label"].isin(["incorrect", "uncertain"])]),
        ({"since": "2026-03-29", "until": "2026-03-30"}, lambda r: r[r["day"].isin(["2026-03-29", "2026-03-30"])]),
        ({"from": "0.25", "to": "0.75"}, lambda rows: rows[rows["worn"].between(0.25, 0.75)]),
        ({"key.site": "nowhere'; DROP TABLE cells; --"}, lambda rows: rows[:0]),
    ],
)
def test_faces_are_those_of_all_filters(client, rows, asked, chosen):
    expected = chosen(rows)
    found = faces_of(client, **asked)
    sorted_rows = expected.sort_values(["image_uri", "face_index"])
    assert len(found) == len(expected)
    assert sorted((one["uri"], one["label"], one["worn"]) for one in found) == sorted(
        zip(sorted_rows["image_uri"], sorted_rows["label"], sorted_rows["worn"], strict=True)
    )


def test_orders_are_by_what_they_say(client, rows):
    worn = [one["worn"] for one in faces_of(client, order="sure_bare")]
    assert worn == sorted(worn) and len(worn) == len(rows)
    unsure = [abs(one["worn"] - 0.5) for one in faces_of(client, order="unsure")]
    assert unsure == sorted(unsure)
    once, again = faces_of(client, order="random"), faces_of(client, order="random")
    assert once == again and [one["id"] for one in once] != [one["id"] for one in faces_of(client)]


def test_images_without_a_face_can_be_seen(client, output):
    faceless = pd.concat([pd.read_parquet(file) for file in table_files(output, "no_face")])
    found = faces_of(client, label="no_face")
    assert sorted(one["uri"] for one in found) == sorted(faceless["image_uri"])


@pytest.mark.parametrize("by", ["site", "camera", "day", "hour"])
def test_bars_add_up_to_the_rows(client, rows, by):
    answer = client.get("/api/view", params={"by": by, "key.camera": "gate"}).json()
    chosen = rows[rows["camera"] == "gate"]
    column = chosen[by].where(chosen["captured_at"].notna()) if by in ("day", "hour") else chosen[by]
    for bar in answer["bars"]:
        value = None if bar["value"] is None else int(bar["value"]) if by == "hour" else bar["value"]
        part = chosen[column.isna() if value is None else column == value]
        counted = part["label"].value_counts()
        assert bar["labels"] == {label: int(counted.get(label, 0)) for label in bar["labels"]}
        known = part[part["label"] != "uncertain"]
        assert bar["share"] == ((known["label"] == "mask").mean() if len(known) else None)
    assert sum(bar["faces"] for bar in answer["bars"]) == len(chosen) == answer["total"]["faces"]


def test_the_histogram_is_of_the_rows(client, rows):
    bins = client.get("/api/histogram", params={"since": "2026-03-25", "from": "0.9"}).json()["bins"]
    chosen = rows[rows["day"] >= "2026-03-25"]
    for label, heights in bins.items():
        places = (chosen[chosen["label"] == label]["worn"] * 20).astype(int).clip(upper=19)
        assert heights == [int((places == number).sum()) for number in range(20)]


def test_what_there_is_to_choose_from(client, rows):
    found = client.get("/api/start").json()
    assert [key["name"] for key in found["keys"]] == list(KEYS)
    values = found["keys"][0]["values"]
    assert set(values) == {None if pd.isna(one) else one for one in rows["site"].unique()}
    assert found["timezone"] == ZONE


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/faces?key.sight=1", "expected one of ['site', 'camera'], received 'sight'"),
        ("/api/view?by=label", "by: expected one of"),
        ("/api/faces?order=1%3BDROP", "order: expected one of"),
        ("/api/faces?since=yesterday", "since: expected a day"),
        ("/api/faces?from=2", "from: expected a number from 0 to 1"),
        ("/api/faces?offset=-1", "offset: expected"),
        ("/api/faces?sql=SELECT", "parameter: expected one of"),
    ],
)
def test_a_wrong_question_is_refused_in_words(client, path, message):
    answer = client.get(path)
    assert answer.status_code == 400 and message in answer.json()["error"]


def test_nobody_enters_without_the_token(output):
    with Tables(output) as tables:
        client = client_of(tables)
        for path in ("/", "/api/start", "/assets/explore.js", "/picture/face/faces-0-0", "/export/faces.csv"):
            assert client.get(path).status_code == 401, path
        assert client.get("/?token=wrong").status_code == 401
        answer = client.get(f"/?token={client.door.token}")
        assert answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and client.door.token.lower() not in cookie
        assert client.get("/").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", "", "localhost"])
def test_a_host_that_is_not_ours_is_refused(output, host):
    with Tables(output) as tables:
        client = entered(tables)
        assert client.get("/api/start", headers={"host": host}).status_code == 421
        assert client.get(f"/?token={client.door.token}", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:1", ""]
)
def test_another_page_cannot_relabel(output, origin):
    with Tables(output) as tables:
        client = entered(tables)
        asked = {"id": "faces-0-0", "label": "mask"}
        assert client.post("/api/relabel", json=asked, headers={"origin": origin}).status_code == 403
        form = {"content-type": "text/plain"}
        assert client.post("/api/relabel", content=json.dumps(asked), headers=form).status_code == 415
        assert tables.corrections == 0


def test_every_answer_forbids_what_it_does_not_need(client):
    for path in ("/", "/api/start", "/nothing", "/assets/explore.js", "/?token=wrong", "/api/faces?x=1"):
        answer = client.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS, path
    page = client.get("/").text
    assert "<script src=" in page and "style=" not in page and "javascript:" not in page and "http" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/picture/face/..%2F..%2Fetc%2Fpasswd",
        "/picture/image/%2Fetc%2Fpasswd",
        "/picture/face/faces-0-999999",
        "/picture/face/faces-99-0",
        "/picture/image/failed-0-0",
        "/picture/image/faces-0-0%00",
        "/picture/image/faces-٠-0",
        "/assets/..%2Fapp.py",
        "/assets/app.py",
        "/export/faces.exe",
        "/export/cells.csv",
    ],
)
def test_there_is_no_way_to_another_file(client, path):
    assert client.get(path).status_code == 404


def test_a_picture_that_is_gone_says_so(client):
    answer = client.get("/picture/face/faces-0-0")
    assert (answer.status_code, answer.text) == (410, "gone since it was scored\n")


@pytest.fixture
def pictured(tmp_path):
    """An output of three images that are there, and one that has changed; each has one face."""
    faces = []
    for number, mask in enumerate((0.9, 0.1, 0.95, 0.2)):
        path, stream = tmp_path / f"photo {number}.png", io.BytesIO()
        Image.new("RGB", (80, 60), (60 * number, 0, 0)).save(stream, "PNG")
        path.write_bytes(stream.getvalue())
        row = face(image(str(path), None, "north", "gate"), 0, mask, 0.0)
        faces.append({**row, "content_sha256": hashlib.sha256(stream.getvalue()).hexdigest()})
    (tmp_path / "photo 3.png").write_bytes(b"something else")
    root = tmp_path / "tables"
    write_drawn(root, (faces, [], []))
    return root


def test_pictures_are_of_their_rows(pictured):
    with Tables(str(pictured)) as tables:
        client = entered(tables)
        for one in faces_of(client):
            number = int(one["uri"][-5])
            for kind, size in (("face", (144, 144)), ("image", (80, 60))):
                answer = client.get(f"/picture/{kind}/{one['id']}")
                if number == 3:
                    assert (answer.status_code, answer.text) == (410, "changed since it was scored\n")
                    continue
                picture = Image.open(io.BytesIO(answer.content))
                assert picture.format == "JPEG" and picture.size == size
                assert picture.getpixel((size[0] // 2, size[1] // 2))[0] == pytest.approx(60 * number, abs=4)


def test_a_corrected_label_counts_from_then_on(pictured):
    with Tables(str(pictured)) as tables:
        client = entered(tables)
        shares = [client.get("/api/view").json()["total"]["share"]]
        chosen = faces_of(client, label="no_mask")
        for label in ("mask", "incorrect", "not_a_face", "mask"):
            answer = client.post("/api/relabel", json={"id": chosen[0]["id"], "label": label}).json()
            assert answer == {"label": label, "model_label": "no_mask", "corrected": True}
            shares.append(client.get("/api/view").json()["total"]["share"])
        assert shares == [2 / 4, 3 / 4, 2 / 4, 2 / 3, 3 / 4]
        assert [one["corrected"] for one in faces_of(client, label="mask")].count(True) == 1
        kept = Corrections.from_table(read_table(str(pictured / "corrections.parquet")))
        assert kept.labels[chosen[0]["uri"]][0][1] == "mask" and len(kept) == 1
    with Tables(str(pictured)) as tables:  # opened anew, the same counts, from the file
        found = figures.read_figures(tables, Selection())
        assert (found.total.rate.successes, found.total.rate.faces, found.corrections) == (3, 4, 1)
        client = entered(tables)
        again = client.post("/api/relabel", json={"id": chosen[0]["id"], "label": None}).json()
        assert again == {"label": "no_mask", "model_label": "no_mask", "corrected": False}
        assert client.get("/api/view").json()["total"]["share"] == 2 / 4
    assert not (pictured / "corrections.parquet").exists()


def test_a_face_of_a_video_is_not_corrected(tmp_path):
    one = image("/videos/gate.mp4", None, "north", "gate")
    frames = [{**face(one, 0, 0.9, 0.0), "frame_time_us": time_us} for time_us in (0, 40_000)]
    write_drawn(tmp_path / "tables", (frames, [], []))
    with Tables(str(tmp_path / "tables")) as tables:
        client = entered(tables)
        answer = client.post("/api/relabel", json={"id": faces_of(client)[0]["id"], "label": "no_mask"})
        assert answer.status_code == 400 and "received 'a face of a video'" in answer.json()["error"]
        assert client.get("/api/view").json()["total"]["share"] == 1.0


def test_a_face_of_tables_that_another_run_replaced_is_not_corrected(tmp_path):
    root = tmp_path / "tables"
    write_drawn(root, drawn_rows(days=1))
    with Tables(str(root)) as tables:
        client = entered(tables)
        chosen = faces_of(client)[0]
        snapshot = json.loads((root / "_snapshot.json").read_text())
        (root / "_snapshot.json").write_text(json.dumps({**snapshot, "run_id": "99990101T000000.000000Z-abcdef"}))
        answer = client.post("/api/relabel", json={"id": chosen["id"], "label": "mask"})
        assert answer.status_code == 400 and "Start maskdet explore again." in answer.json()["error"]
    assert not (root / "corrections.parquet").exists()


def test_counts_moved_one_by_one_are_counts_made_anew(tmp_path):
    root = tmp_path / "tables"
    write_drawn(root, drawn_rows(days=3))
    with Tables(str(root)) as tables:
        client = entered(tables)
        for number, one in enumerate(faces_of(client)):
            label = ("mask", "incorrect", "no_mask", "not_a_face", None)[number % 5]
            assert client.post("/api/relabel", json={"id": one["id"], "label": label}).status_code == 200
        query = "SELECT * FROM cells ORDER BY ALL"
        moved = tables.rows(query)
        tables.make_cells(Selection())
        assert tables.rows(query) == moved


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"id": "faces-0-0", "label": "uncertain"}, 400),
        ({"id": "faces-0-0", "label": ["mask"]}, 400),
        ({"id": "faceless-0-0", "label": "mask"}, 404),
        ({"id": "faces-7-0", "label": "mask"}, 404),
        ({"label": "mask"}, 404),
        ([], 404),
    ],
)
def test_what_is_no_label_of_a_face_is_refused(client, output, asked, code):
    assert client.post("/api/relabel", json=asked).status_code == code


def test_exports_hold_the_rows_that_are_shown(client, rows, tmp_path):
    asked = {"key.site": "north", "label": "mask"}
    expected = rows[(rows["site"] == "north") & (rows["label"] == "mask")]
    frames = {}
    for kind, read in (("csv", pd.read_csv), ("xlsx", pd.read_excel), ("parquet", pd.read_parquet)):
        answer = client.get(f"/export/faces.{kind}", params=asked)
        assert answer.headers["content-disposition"] == f'attachment; filename="maskdet-faces.{kind}"'
        path = tmp_path / f"faces.{kind}"
        path.write_bytes(answer.content)
        frames[kind] = read(path)
        assert identity(frames[kind]) == identity(expected), kind
        assert frames[kind]["probability_mask"].sum() == pytest.approx(expected["probability_mask"].sum(), rel=1e-6)
    local = expected.set_index("image_uri")["captured_at"].dt.tz_convert(ZONE).dt.tz_localize(None)
    for _, row in frames["xlsx"].iterrows():
        when = local.loc[[row["image_uri"]]].iloc[0]
        assert pd.isna(when) == pd.isna(row["captured_at"])
        assert pd.isna(when) or abs(row["captured_at"] - when) < pd.Timedelta("1s")


def test_exported_counts_are_the_bars(client, tmp_path):
    bars = client.get("/api/view", params={"by": "site"}).json()["bars"]
    for kind, read in (("csv", pd.read_csv), ("xlsx", pd.read_excel), ("parquet", pd.read_parquet)):
        path = tmp_path / f"counts.{kind}"
        path.write_bytes(client.get(f"/export/counts.{kind}", params={"by": "site"}).content)
        frame = read(path, keep_default_na=False, na_values=[""]) if kind != "parquet" else read(path)
        assert frame["faces"].tolist() == [bar["faces"] for bar in bars]
        assert frame["rate"].tolist() == pytest.approx([bar["share"] for bar in bars])
        assert frame["site"].tolist()[:-1] == [bar["value"] for bar in bars][:-1]


def test_no_text_in_excel_is_a_formula(tmp_path):
    formula = '=HYPERLINK("http://evil.example","x")'
    faces = [
        face(image(formula, None, "@SUM(1)", "+1"), 0, 0.9, 0.0),
        face(image("http://a", None, "-1", "x"), 0, 0.9, 0),
    ]
    write_drawn(tmp_path / "tables", (faces, [], []))
    with Tables(str(tmp_path / "tables")) as tables:
        content = entered(tables).get("/export/faces.xlsx").content
    sheet = openpyxl.load_workbook(io.BytesIO(content)).active
    cells = [cell for row in sheet.iter_rows(min_row=2) for cell in row]
    assert {cell.value for cell in cells} >= {formula, "@SUM(1)", "+1", "-1", "http://a"}
    assert not [cell for cell in cells if cell.data_type == "f" or cell.hyperlink]


def test_too_many_rows_for_excel_are_refused(client, monkeypatch):
    monkeypatch.setattr("maskdet.explore.exports.EXCEL_ROWS", 3)
    answer = client.get("/export/faces.xlsx")
    assert answer.status_code == 400 and "export: expected at most 3 rows for Excel" in answer.json()["error"]
    assert client.get("/export/faces.csv").status_code == 200


def test_an_address_that_cannot_be_listened_on_is_named(output):
    with Tables(output) as tables:
        for host, port in (("127.0.0.1", 65536), ("127.0.0.1", -1)):
            with pytest.raises(ConfigError, match=f"--host and --port: .*received '{host}:{port} "):
                serve(tables, host, port, (), lambda _: None)
