"""The page for labelling a sample, as a person uses it in a headless Chromium: keys, progress, reload, the end."""

import csv
import io
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browsing import DESKTOP, PHONE
from drawn_output import SCRIPT
from PIL import Image, ImageDraw

from maskdet.audit.label_page import LabelSession, address, serve
from maskdet.audit.labels import read_sample
from maskdet.cli.main import main
from maskdet.config import ImagingSettings
from maskdet.images.preprocessing import ImageLimits
from tests.outputs import face, write_output

FACES = 6


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A sample of six faces, each in an image of its own colour; the last image is gone."""
    folder = tmp_path_factory.mktemp("labelling")
    images, content = [], {}
    for number in range(FACES):
        picture, stream = Image.new("RGB", (200, 120), (40 * number, 90, 200)), io.BytesIO()
        ImageDraw.Draw(picture).ellipse((4, 4, 19, 19), fill="white")
        picture.save(stream, "PNG")
        path = folder / f"{number}{SCRIPT.replace('/', '')}.png"
        path.write_bytes(stream.getvalue())
        content[str(path)] = stream.getvalue()
        images.append((str(path), ("north", "gate"), None, [face(("mask", "no_mask")[number % 2])]))
    write_output(folder / "tables", images, content=content)
    sample = folder / "audit.parquet"
    assert main(["audit", "sample", str(folder / "tables"), "--size", str(FACES), "--sample", str(sample)]) == 0
    return sample


class Labelling:
    """A person who uses the page."""

    def __init__(self, sample, labels, browser):
        self.labels, self._browser, self._contexts = labels, browser, []
        self.session = LabelSession(read_sample(str(sample)), str(labels), ImageLimits.of(ImagingSettings()))
        self._server = serve(self.session)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.address = address(self._server, self.session)

    def visit(self, **options):
        context = self._browser.new_context(**{"viewport": DESKTOP, **options})
        self._contexts.append(context)
        page = context.new_page()
        page.faults, page.hosts = [], set()
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("request", lambda request: page.hosts.add(urlsplit(request.url.removeprefix("blob:")).netloc))
        page.on("dialog", lambda dialog: page.faults.append(dialog.message))
        page.goto(self.address)
        self.wait(page, "1 of 6")
        return page

    def wait(self, page, words):
        """Wait until the page says so, and shows the face or the reason why it cannot."""
        for _ in range(200):
            seen = page.evaluate("!document.querySelector('#face').hidden || !document.querySelector('#gone').hidden")
            if words in page.locator("#where").inner_text() and seen:
                return
            page.wait_for_timeout(50)
        raise AssertionError(f"{words}: {page.locator('#where').inner_text()} {page.faults}")

    def saved(self):
        with self.labels.open(newline="") as stream:
            return {row["image_uri"]: row["label"] for row in csv.DictReader(stream)}

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def close(self):
        for context in self._contexts:
            context.close()
        self.stop()


@pytest.fixture
def labelling(sampled, tmp_path, browser):
    one = Labelling(sampled, tmp_path / "audit.ana.csv", browser)
    yield one
    one.close()


def colour(page):
    """The colour in the middle of the face that is shown."""
    return page.evaluate(
        """() => { const seen = document.querySelector('#face'), canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [seen.naturalWidth, seen.naturalHeight];
        const drawn = canvas.getContext('2d'); drawn.drawImage(seen, 0, 0);
        return [...drawn.getImageData(4, canvas.height - 4, 1, 1).data.slice(0, 3)]; }"""
    )


def test_each_key_labels_a_face_and_shows_the_next(labelling):
    page, uris = labelling.visit(), labelling.session.sample["image_uri"].to_pylist()
    assert "0 labelled" in page.locator("#where").inner_text()
    for number, key in enumerate("minxu", start=1):
        page.keyboard.press(key)
        labelling.wait(page, f"Face {number + 1} of 6; {number} labelled")
        assert page.locator("#progress").evaluate("bar => bar.value / bar.max") == pytest.approx(number / FACES)
    labels = ["mask", "incorrect", "no_mask", "not_a_face", "unsure"]
    assert labelling.saved() == dict(zip(uris[:5], labels, strict=True))
    page.keyboard.press("ArrowLeft")
    labelling.wait(page, "Face 5 of 6")
    assert page.locator("[aria-pressed=true]").get_attribute("data-label") == "unsure"
    page.keyboard.press("m")  # a second thought
    labelling.wait(page, "Face 6 of 6; 5 labelled")
    assert labelling.saved()[uris[4]] == "mask"
    page.keyboard.press("z")
    page.keyboard.press("Control+m")
    assert "Face 6 of 6; 5 labelled" in page.locator("#where").inner_text()
    assert page.faults == []


def test_what_is_shown_is_the_face_of_the_row(labelling):
    page = labelling.visit()
    for number, uri in enumerate(labelling.session.sample["image_uri"].to_pylist()):
        labelling.wait(page, f"Face {number + 1} of 6")
        with Image.open(uri) as picture:
            expected = pytest.approx(picture.getpixel((100, 100)), abs=6)
        for _ in range(100):  # until it is drawn
            if colour(page) == expected:
                break
            page.wait_for_timeout(50)
        assert colour(page) == expected
        page.keyboard.press("ArrowRight")


def test_after_a_reload_it_goes_on_at_the_first_open_face(labelling):
    page = labelling.visit()
    for number, key in enumerate("mn", start=2):
        page.keyboard.press(key)
        labelling.wait(page, f"Face {number} of 6")
    page.keyboard.press("ArrowRight")
    labelling.wait(page, "Face 4 of 6")
    page.reload()
    labelling.wait(page, "Face 3 of 6; 2 labelled")
    again = LabelSession(labelling.session.sample, str(labelling.labels), labelling.session.limits)
    assert [label for label in again.given() if label] == ["mask", "no_mask"]
    assert page.faults == []


def test_at_the_end_it_says_what_comes_next(labelling):
    page = labelling.visit()
    for number in range(FACES - 1):
        page.locator("[data-label=no_mask]").click()
        labelling.wait(page, f"Face {number + 2} of 6; {number + 1} labelled")
    assert not page.locator("#done").is_visible()
    page.keyboard.press("n")
    page.locator("#done").wait_for(state="visible")
    assert page.locator("#where").inner_text() == "Face 6 of 6; 6 labelled"
    assert "All 6 faces are labelled" in page.locator("#done").inner_text()
    assert set(labelling.saved().values()) == {"no_mask"}
    page.reload()
    page.locator("#done").wait_for(state="visible")
    assert page.faults == []


def test_an_image_that_is_gone_or_changed_can_still_be_passed(labelling):
    photo = Path(labelling.session.sample["image_uri"][0].as_py())
    content = photo.read_bytes()
    try:
        photo.write_bytes(content + b"more")
        page = labelling.visit()
        assert "changed" in page.locator("#gone").inner_text() and not page.locator("#face").is_visible()
        page.keyboard.press("u")
        labelling.wait(page, "Face 2 of 6; 1 labelled")
        page.locator("#face").wait_for(state="visible")
    finally:
        photo.write_bytes(content)


def test_a_label_that_was_not_saved_is_said(labelling):
    page = labelling.visit()
    labelling.stop()
    page.keyboard.press("m")
    page.get_by_text("Not saved").wait_for()
    assert page.locator("[aria-pressed=true]").count() == 0
    assert page.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_fits_the_screen_and_asks_no_other_host(labelling, viewport, scheme):
    page = labelling.visit(viewport=viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    last = page.locator("[data-label=unsure]").bounding_box()
    assert last["y"] + last["height"] <= viewport["height"], "all choices can be seen without scrolling"
    for button in page.locator("button").all():
        assert button.bounding_box()["height"] >= 44
    assert contrast(page, "[data-label=mask]") >= 4.5
    assert page.hosts == {urlsplit(labelling.address).netloc}


def contrast(page, selector):
    """The contrast of a text with its background, as WCAG 2.2 defines it."""
    colours = page.evaluate(
        """selector => { const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const style = getComputedStyle(document.querySelector(selector));
        let behind = document.querySelector(selector), found = null;
        while (behind && !found) { const colour = getComputedStyle(behind).backgroundColor;
          found = colour === 'rgba(0, 0, 0, 0)' ? null : colour; behind = behind.parentElement; }
        return [rgb(style.color), rgb(found)]; }""",
        selector,
    )
    levels = []
    for rgb in colours:
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        levels.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(levels) + 0.05) / (min(levels) + 0.05)
