"""People in videos as a user of the explorer sees them: a list, the video from their time on, and its frames."""

import functools
import re

import pytest
from browsing import DESKTOP, PHONE
from browsing import settle as settle_on
from browsing import until as wait_until
from filmed_output import score_films

from maskdet.cli.main import main

# Frames of videos are decoded on the way.
until = functools.partial(wait_until, patience_s=20.0)
settle = functools.partial(settle_on, shown="#people-rate b", patience_s=20.0)


@pytest.fixture(scope="module")
def output(score, demo, tmp_path_factory, browser):
    return score_films(score, demo, tmp_path_factory.mktemp("filmed"))


def seen(selector):
    """The condition that all pictures of a selector are loaded."""
    return f"[...document.querySelectorAll('{selector}')].every(one => one.complete && one.naturalWidth > 0)"


def test_people_are_listed_with_their_faces_and_their_rate(opened):
    page = opened()
    people = page.locator("#tracks .face")
    assert people.count() == 3
    assert page.locator("#rate div:has([data-of=images])").inner_text().split("\n")[-1] == "images and frames"
    page.locator("#people").scroll_into_view_if_needed()
    until(page, seen("#tracks img"))
    assert page.locator("#tracks div.picture").count() == 0
    assert "put a mask on" in page.locator("#tracks .face:has(.changes)").inner_text()
    assert "3 people in 2 videos" in page.locator("#people-about").inner_text()
    page.locator("select[data-key=site]").select_option(label="south")
    until(page, "document.querySelectorAll('#tracks .face').length === 1")
    assert "1 person in 1 video," in page.locator("#people-about").inner_text()
    assert page.faults == []


def test_a_video_plays_from_when_the_person_comes(opened, address):
    page = opened("?key.site=south")
    page.locator("#tracks .face").click()
    until(page, "document.querySelector('#video').readyState >= 2")
    # The person is first seen after a second.
    until(page, "Math.abs(document.querySelector('#video').currentTime - 1.0) < 0.1")
    assert page.locator("#video").is_visible() and not page.locator("#still").is_visible()
    until(page, "document.querySelectorAll('#strip .face').length > 8")
    until(page, seen("#strip img[loading=eager]"))
    last = page.locator("#strip .face").last
    last.click()
    until(
        page, f"Math.abs(document.querySelector('#video').currentTime - {last.get_attribute('data-time')} / 1e6) < 0.05"
    )
    page.locator("#film-close").click()
    assert not page.locator("#film").is_visible()
    assert page.evaluate("document.activeElement.classList.contains('face')")
    assert page.hosts == {address.split("/?")[0]}
    assert page.faults == []


def test_where_the_browser_cannot_play_it_its_frames_are_shown(opened):
    page = opened("?key.site=north")
    page.locator("#tracks .face:has(.changes)").click()
    until(page, "!document.querySelector('#still').hidden && document.querySelector('#still').naturalWidth === 640")
    assert "cannot play" in page.locator("#film-said").inner_text()
    assert not page.locator("#video").is_visible()
    until(page, "document.querySelectorAll('#strip .face').length > 8")
    before = page.locator("#still").get_attribute("src")
    page.get_by_role("button", name=re.compile(r"put a mask on$")).click()
    until(page, f"document.querySelector('#still').getAttribute('src') !== {before!r} && {seen('#still')}")
    assert page.faults == []


def test_a_face_of_a_video_is_seen_in_its_frame_and_not_corrected(opened):
    page = opened("?key.site=south&label=no_mask")
    face = page.locator("#faces .face").first
    face.scroll_into_view_if_needed()
    face.click()
    until(page, "document.querySelector('#box rect') && document.querySelector('#image').naturalWidth === 640")
    assert "time in video" in page.locator("#facts").inner_text()
    assert page.locator("#relabel button").count() == 0
    page.keyboard.press("m")
    assert page.locator(".corrected").count() == 0
    assert page.faults == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_is_wider_than_the_screen(opened, viewport):
    page = opened("?key.site=south", viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    page.locator("#tracks .face").click()
    until(page, "document.querySelectorAll('#strip .face').length > 8")
    box = page.locator("#film").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
    assert page.faults == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE, {"width": 320, "height": 640}], ids=["desktop", "phone", "small"])
def test_people_of_a_report_fit_its_page(browser, output, viewport):
    assert main(["report", str(output.folder)]) == 0
    context = browser.new_context(viewport=viewport)
    page = context.new_page()
    page.goto((output.folder / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    section = page.locator("#people")
    assert "of 3 people wore a mask correctly" in section.inner_text()
    assert section.evaluate(BEYOND) == []
    context.close()


# Elements that stick out of their section.
BEYOND = """frame => [...frame.querySelectorAll("*")].filter(one => {
  const box = one.getBoundingClientRect(), room = frame.getBoundingClientRect();
  return box.width && (box.right > room.right + 1 || box.left < room.left - 1);
}).map(one => one.outerHTML.slice(0, 120))"""
