"""The report as a browser shows it: nothing cut off, legible in light and dark, on a phone and on paper."""

import re

import pytest
from browsing import DESKTOP, PHONE
from drawn_output import write_drawn

from maskdet.cli.main import main


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "tables"
    write_drawn(root)
    assert main(["report", str(root), "--title", "<script>document.title='owned'</script>"]) == 0
    return root / "report.html"


@pytest.fixture
def open_page(browser, page_file):
    contexts = []

    def opened(**options):
        context = browser.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: page.faults.append(request.url) if request.url[:5] != "file:" else None)
        page.goto(page_file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, {"width": 320, "height": 640}], ids=["desktop", "phone", "small"])
def test_nothing_is_wider_than_the_screen(open_page, viewport, scheme):
    page = open_page(viewport=viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.evaluate(_BEYOND) == []
    assert page.faults == []


# Elements that stick out of their section, unless they lie in something that scrolls or is cut on purpose.
_BEYOND = """() => [...document.querySelectorAll("section *")].filter(one => {
  if (one.closest(".scroll, pre, .skip, .heat, [hidden]")) return false;
  const box = one.getBoundingClientRect(), frame = one.closest("section").getBoundingClientRect();
  return box.width && (box.right > frame.right + 1 || box.left < frame.left - 1);
}).map(one => one.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(open_page, scheme):
    page = open_page(color_scheme=scheme)
    pairs = page.evaluate(_COLOURS)
    assert len(pairs) > 5
    faint = {(text, ink, ground) for text, ink, ground in pairs if contrast(ink, ground) < 4.5}
    assert not faint


# Each different pair of colours of a text and its background, with an example.
_COLOURS = """() => {
  const found = new Map();
  for (const one of document.querySelectorAll("h1, h2, h3, p, th, td, dt, dd, a, summary, code, svg text, data")) {
    if (!one.textContent.trim() || !one.getClientRects().length) continue;
    const style = getComputedStyle(one), ink = one.closest("svg") ? style.fill : style.color;
    let behind = one;
    while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const ground = getComputedStyle(behind || document.body).backgroundColor;
    if (style.fontSize !== "0px" && !ground.startsWith("color(")) {
      found.set(ink + ground, [one.textContent.trim().slice(0, 40), ink, ground]);
    }
  }
  return [...found.values()];
}"""


def contrast(one, other):
    """The contrast of two colours, as WCAG 2.2 defines it."""

    def luminance(colour):
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(118, 118, 118)", "rgb(255, 255, 255)") == pytest.approx(4.54, abs=0.005)


def test_charts_have_names_and_a_table_behind_them(open_page):
    page = open_page()
    charts = page.locator("svg[role=img]")
    assert charts.count() > 3
    assert all(charts.nth(number).get_attribute("aria-label") for number in range(charts.count()))
    details = page.locator("section:has(figure svg[role=img].time), section:has(svg.histogram)").locator("details")
    first = details.first
    assert not first.locator("table").is_visible()
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    assert first.locator("table").is_visible()


def test_dots_stand_where_their_numbers_say(open_page):
    page = open_page()
    rows = page.evaluate(_DOTS)
    assert len(rows) >= 5
    # Two places and their shares give the axis; all others must lie on it.
    (left, low), (right, high) = min(rows), max(rows)
    for place, share in rows:
        assert low + (place - left) / (right - left) * (high - low) == pytest.approx(share, abs=2e-3)


_DOTS = """() => [...document.querySelectorAll("table.rates.stack:not(.bars) tr:has(circle)")].map(row => {
  const dot = row.querySelector("circle").getBoundingClientRect();
  return [dot.left + dot.width / 2, Number(row.querySelector("data").value)];
})"""


def test_on_paper_all_is_black_on_white(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(0, 0, 0)"


def test_a_title_is_a_title(open_page):
    page = open_page()
    assert page.title() == "<script>document.title='owned'</script>"
