"""The explorer as a person uses it, in a headless Chromium: filter, drill down, relabel, export, by mouse and keys."""

import hashlib
import io

import pandas as pd
import pytest
from browsing import DESKTOP, PHONE, settle, until
from drawn_output import SCRIPT, drawn_rows, face, image, write_drawn
from PIL import Image, ImageDraw

from maskdet.tables.snapshot import table_files


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Drawn rows, and one image that is there, with two faces: a red square and a blue one."""
    folder = tmp_path_factory.mktemp("browsing")
    picture, stream = Image.new("RGB", (400, 200), "white"), io.BytesIO()
    ImageDraw.Draw(picture).rectangle((40, 50, 79, 99), fill="red")
    ImageDraw.Draw(picture).rectangle((300, 100, 359, 159), fill="blue")
    picture.save(stream, "PNG")
    path = folder / f"{SCRIPT.replace('/', '')}.png"
    path.write_bytes(stream.getvalue())
    one = image(str(path), None, "here", "gate") | {"content_sha256": hashlib.sha256(stream.getvalue()).hexdigest()}
    one |= {"width_px": 400, "height_px": 200}
    boxes = ((40, 50, 40, 50), (300, 100, 60, 60))
    sides = [f"face_{side}_px" for side in ("left", "top", "width", "height")]
    here = [
        face(one, index, (0.97, 0.03)[index], 0.0) | dict(zip(sides, box, strict=True))
        for index, box in enumerate(boxes)
    ]
    faces, faceless, failures = drawn_rows(days=4)
    write_drawn(folder / "tables", ([*faces, *here], faceless, failures))
    return folder / "tables"


def number(page, name):
    return page.locator(f"#rate [data-of={name}]").inner_text()


def rows_of(output):
    return pd.concat([pd.read_parquet(file) for file in table_files(str(output))], ignore_index=True)


@pytest.mark.parametrize(
    ("face", "words"),
    [
        ('{label: "mask", worn: .8, incorrect: .2}', "mask 60%"),
        ('{label: "incorrect", worn: .8, incorrect: .5}', "worn incorrectly 50%"),
        ('{label: "no_mask", worn: .1, incorrect: .05}', "no mask 90%"),
        ('{label: "uncertain", worn: .45, incorrect: null}', "uncertain, mask 45%"),
        ('{label: "incorrect", worn: .8, incorrect: null}', "worn incorrectly, mask 80%"),  # a person said so
        ('{label: "not_a_face", worn: .8, incorrect: .2}', "not a face, mask 80%"),
    ],
)
def test_a_tile_shows_the_probability_of_its_own_label(opened, face, words):
    assert opened().evaluate(f"chance({face})") == words


def test_from_a_bar_to_its_faces_to_the_image(opened, output):
    page, rows = opened(), rows_of(output)
    assert number(page, "faces") == f"{len(rows):,}"
    page.locator('.bar[data-value="here"]').click()
    until(page, "document.querySelectorAll('.face').length === 2")
    settle(page)
    assert number(page, "share") == "50.0%" and page.locator("#chips").inner_text().strip() == "site: here"
    page.locator(".face.mask").click()
    until(page, "document.querySelector('#box rect') && document.querySelector('#image').complete")
    assert SCRIPT.replace("/", "") in page.locator("#facts").inner_text()
    drawn, seen = page.locator("#box rect").last.bounding_box(), page.locator("#image").bounding_box()
    places = [(drawn["x"] - seen["x"]) / seen["width"], (drawn["y"] - seen["y"]) / seen["height"]]
    places += [drawn["width"] / seen["width"], drawn["height"] / seen["height"]]
    assert places == pytest.approx([40 / 400, 50 / 200, 40 / 400, 50 / 200], abs=0.01)
    page.keyboard.press("Escape")
    assert not page.locator("#whole").is_visible()
    page.go_back()
    until(page, "document.querySelectorAll('.face').length === 60")
    assert page.faults == []


def test_filters_of_labels_days_and_probabilities(opened, output):
    page, rows = opened(), rows_of(output)
    page.get_by_label("no mask", exact=True).check()
    expected = int((rows["label"] == "no_mask").sum())
    until(page, f"document.querySelector('#faces-about').textContent.startsWith('{expected:,} faces')")
    page.get_by_label("no mask", exact=True).uncheck()
    settle(page)
    bars = page.locator("#histogram button")
    last = int(bars.last.get_attribute("data-faces"))
    worn = rows["probability_mask"].astype(float) + rows["probability_incorrect"].astype(float)
    assert bars.count() == 20 and last == int((worn >= 0.95).sum())
    bars.last.click()
    until(page, f"document.querySelector('#faces-about').textContent.startsWith('{last:,} faces')")
    page.get_by_text("Clear all").click()
    settle(page)
    page.locator("select[data-key=site]").select_option(label=SCRIPT)
    expected = int((rows["site"] == SCRIPT).sum())
    until(page, f"document.querySelector('#faces-about').textContent.startsWith('{expected:,} faces')")
    assert page.locator("#chips").inner_text().strip() == f"site: {SCRIPT}"
    page.locator("#chips button").click()
    page.locator("input[name=since]").fill("2026-03-25")
    page.locator("input[name=since]").blur()
    day = rows["captured_at"].dt.tz_convert("Europe/Berlin").dt.date.astype(str)
    expected = int((day >= "2026-03-25").where(rows["captured_at"].notna(), other=False).sum())
    until(page, f"document.querySelector('#faces-about').textContent.startsWith('{expected:,} faces')")
    assert page.faults == []


def test_a_label_is_corrected_by_keys(opened, output):
    page = opened("?key.site=here&order=sure_mask")
    page.locator(".face").first.focus()
    assert "mask" in page.locator(".face").first.get_attribute("class").split()
    page.keyboard.press("n")
    page.wait_for_selector(".face.no_mask.corrected")
    until(page, "document.querySelector('[data-of=share]').textContent === '0.0%'")
    assert pd.read_parquet(output / "corrections.parquet")["label"].tolist() == ["no_mask"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_selector("#relabel button[data-label=mask]")
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('#relabel button[aria-pressed=true]').dataset.label === 'no_mask'")
    page.keyboard.press("0")
    until(page, "document.querySelector('[data-of=share]').textContent === '50.0%'")
    assert not (output / "corrections.parquet").exists()
    assert page.faults == []


def test_pages_are_turned_by_keys(opened, output):
    page, total = opened("?order=sure_bare"), len(rows_of(output))
    assert page.locator("#where").inner_text() == f"1 to 60 of {total:,}"
    page.keyboard.press("Shift+ArrowRight")
    until(page, f"document.querySelector('#where').textContent.startsWith('61 to {min(120, total)}')")
    page.keyboard.press("Shift+ArrowLeft")
    until(page, "document.querySelector('#where').textContent.startsWith('1 to 60')")


def test_what_is_shown_is_exported(opened, output, tmp_path):
    page, rows = opened("?key.site=here"), rows_of(output)
    for kind, read in (("CSV", pd.read_csv), ("XLSX", pd.read_excel), ("PARQUET", pd.read_parquet)):
        with page.expect_download() as waiting:
            page.locator("[data-what=faces]").get_by_text(kind, exact=True).click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        assert set(read(path)["image_uri"]) == set(rows[rows["site"] == "here"]["image_uri"])


def test_names_are_never_markup_and_no_other_host_is_asked(opened, address):
    page = opened()
    assert page.locator("main script, main img[src='x'], main b:not([data-of])").count() == 0
    assert SCRIPT in page.locator("#bars").inner_text()
    assert page.hosts == {address.split("/?")[0]}
    assert page.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(opened, viewport, scheme):
    page = opened("?key.site=here", viewport=viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.locator(".face").first.click()
    page.wait_for_selector("#box rect", state="attached")
    box = page.locator("#whole").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
    assert page.faults == []
