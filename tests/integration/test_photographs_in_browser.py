"""Explorer and report of a run over photographs, by site and day: what a page shows is what the tables contain."""

import re
import shutil

import pandas as pd
import pytest
from browsing import DESKTOP, PHONE, settle, until

from maskdet.cli.main import main
from maskdet.tables.snapshot import table_files

pytestmark = pytest.mark.data
EACH = 24
KINDS = {"k12": "k12/Test/*/*", "wild": "wild/*/*", "scenes": "scenes/images/*"}
FLAGS = ("--template", "{site}/{captured_at:%Y-%m-%dT%H-%M-%S}.*", "--set", "compliance.levels={daily: [site, date]}")


@pytest.fixture(scope="module")
def output(score, data_folder, tmp_path_factory, browser):
    """Photographs of three collections as those of three sites, over four days."""
    root = tmp_path_factory.mktemp("photographs")
    for site, pattern in KINDS.items():
        (root / "in" / site).mkdir(parents=True)
        paths = sorted(data_folder.glob(pattern))
        for number, path in enumerate(paths[:: len(paths) // EACH][:EACH]):
            name = f"2026-03-{2 + number % 4:02d}T{8 + number % 3:02d}-00-{number:02d}{path.suffix}"
            shutil.copy(path, root / "in" / site / name)
    found = score(root / "tables", root / "in", template=None, faces="detect", flags=FLAGS)
    assert found.code == 0
    return found


@pytest.fixture(scope="module")
def rows(output):
    return pd.concat([pd.read_parquet(file) for file in table_files(str(output.folder))], ignore_index=True)


def percent(labels):
    """The share of masks worn correctly among the faces labelled with a class, as pages write it."""
    decided = labels[labels != "uncertain"]
    return f"{100 * (decided == 'mask').mean():.1f}%"


def test_every_site_and_day_has_the_numbers_of_the_tables(opened, rows):
    page = opened()
    assert page.locator("#rate [data-of=faces]").inner_text() == f"{len(rows):,}"
    assert page.locator("#rate [data-of=images]").inner_text() == str(EACH * len(KINDS))
    assert page.locator("#rate [data-of=share]").inner_text() == percent(rows["label"])
    for site, of_site in rows.groupby("site"):
        page = opened(f"?key.site={site}")
        assert page.locator("#rate [data-of=faces]").inner_text() == f"{len(of_site):,}"
        assert page.locator("#rate [data-of=share]").inner_text() == percent(of_site["label"])
        assert page.faults == []
    for day, of_day in rows.groupby(rows["captured_at"].dt.date):
        page = opened(f"?since={day}&until={day}")
        assert page.locator("#rate [data-of=faces]").inner_text() == f"{len(of_day):,}"
        assert page.faults == []
    site, day = rows["site"].iloc[0], rows["captured_at"].iloc[0].date()
    page = opened(f"?key.site={site}&since={day}&until={day}")
    both = (rows["site"] == site) & (rows["captured_at"].dt.date == day)
    assert page.locator("#rate [data-of=faces]").inner_text() == f"{both.sum():,}"


def test_from_a_site_to_a_face_to_its_correction_and_an_export(opened, output, rows, tmp_path):
    page = opened("?order=sure_bare")
    page.locator('.bar[data-value="scenes"]').click()
    of_site = rows[rows["site"] == "scenes"]
    until(page, f"document.querySelector('#faces-about').textContent.startsWith('{len(of_site):,} faces')")
    settle(page)
    first = page.locator("#faces .face").first
    until(page, "document.querySelector('#faces .face img').naturalWidth > 0")  # a crop of the photograph itself
    before = page.locator("#rate [data-of=share]").inner_text()
    first.focus()
    page.keyboard.press("m")
    page.wait_for_selector("#faces .face.mask.corrected")
    [given] = pd.read_parquet(output.folder / "corrections.parquet").to_dict("records")
    is_first = (of_site["image_uri"] == given["image_uri"]) & (of_site["face_index"] == given["face_index"])
    assert given["label"] == "mask" and is_first.sum() == 1
    now = of_site["label"].mask(is_first, "mask")
    until(page, f"document.querySelector('#rate [data-of=share]').textContent === '{percent(now)}'")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#box rect') && document.querySelector('#image').naturalWidth > 0")
    page.keyboard.press("Escape")
    with page.expect_download() as waiting:
        page.locator("[data-what=faces]").get_by_text("CSV", exact=True).click()
    waiting.value.save_as(tmp_path / "faces.csv")
    assert len(pd.read_csv(tmp_path / "faces.csv")) == len(of_site)
    page.locator("#faces .face.corrected").first.focus()
    page.keyboard.press("0")
    until(page, f"document.querySelector('#rate [data-of=share]').textContent === '{before}'")
    assert page.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_report_fits_its_page_and_says_what_the_tables_hold(browser, output, rows, viewport, scheme):
    assert main(["report", str(output.folder), "--by", "site"]) == 0
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    page.goto((output.folder / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    text = page.locator("main").inner_text()
    assert percent(rows["label"]) in text
    for _, of_site in rows.groupby("site"):
        assert percent(of_site["label"]) in text
    assert re.search(rf"\b{len(rows):,}\b", text)
    context.close()
