"""Path templates: what they read, what they refuse, and that they read back what they wrote."""

from __future__ import annotations

import calendar
import pickle
import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.errors import ConfigError
from maskdet.templates import PathTemplate, TemplateMatch, epoch_ms

FULL = "{site}/{camera}/{captured_at:%Y-%m-%d}/{captured_at:%H}/*.jpg"


def utc_ms(*parts: int) -> int:
    """Milliseconds since the epoch, computed from the calendar alone."""
    return calendar.timegm((*parts, *([0] * (6 - len(parts))))) * 1000


def read(template: str, path: str) -> TemplateMatch | None:
    return PathTemplate(template).match(path)


def test_a_template_reads_keys_and_one_time_from_several_parts() -> None:
    template = PathTemplate(FULL)
    assert template.keys == ("site", "camera")
    assert template.has_captured_at
    assert template.depth == 5
    assert template.match("a/c1/2026-01-31/08/x.jpg") == (("a", "c1"), utc_ms(2026, 1, 31, 8))


def test_a_template_without_a_time_reads_keys_only() -> None:
    template = PathTemplate("{site}/*")
    assert not template.has_captured_at
    assert template.match("a/x.jpg") == (("a",), None)


@pytest.mark.parametrize(
    "path",
    [
        "a/c1/2026-01-31/08/x.png",
        "a/c1/2026-01-31/08/x.jpg.part",
        "a/c1/2026-01-31/08/deeper/x.jpg",
        "a/c1/2026-01-31/x.jpg",
        "a//2026-01-31/08/x.jpg",
        "/a/c1/2026-01-31/08/x.jpg",
        "a/c1/2026-1-31/08/x.jpg",
        "a/c1/2026-02-30/08/x.jpg",
        "a/c1/2025-02-29/08/x.jpg",
        "a/c1/0000-01-01/08/x.jpg",
        "a/c1/2026-01-31/24/x.jpg",
        "a/c1/２０２６-01-31/08/x.jpg",
        "",
    ],
)
def test_a_path_that_does_not_fit_or_names_no_real_time_is_no_match(path: str) -> None:
    assert read(FULL, path) is None


@pytest.mark.parametrize(
    ("template", "path", "keys"),
    [
        ("{site} (old)+[x]/*.jpg", "a (old)+[x]/1.jpg", ("a",)),
        ("v1.0/{site}/*", "v1.0/a/1.jpg", ("a",)),
        ("^{site}$/*", "^a$/1.jpg", ("a",)),
        (r"{site}\d|x/*", r"a\d|x/1.jpg", ("a",)),
        ("{site}#?%=&/*", "a#?%=&/1.jpg", ("a",)),
        ("straße/{site}/*", "straße/日本/1.jpg", ("日本",)),
        ("{site}/*", "with space/a b.jpg", ("with space",)),
        ("site={site}/*", "site=a=b/1.jpg", ("a=b",)),
        ("{a}-{b}.jpg", "x-y-z.jpg", ("x", "y-z")),
        ("{a}_*_{b}.jpg", "x_y_z_w.jpg", ("x", "w")),
        ("/{site}/*/", "a/1.jpg", ("a",)),
        ("**/{site}/*.jpg", "x/y/a/1.jpg", ("a",)),
        ("**/{site}/*.jpg", "x\ny/a/1.jpg", ("a",)),
        ("{site}/*", "a/new\nline.jpg", ("a",)),
        ("{captured_at_0}/{site}", "x/y", ("x", "y")),
    ],
)
def test_literals_mean_themselves_and_wildcards_what_they_say(template: str, path: str, keys: tuple[str, ...]) -> None:
    assert read(template, path) == (keys, None)


@pytest.mark.parametrize(
    ("template", "path"),
    [("v1.0/{site}", "v1x0/a"), ("a+/{site}", "aa/x"), ("{site}/[ab].jpg", "x/a.jpg"), ("*/{site}", "a/b/c")],
)
def test_literals_do_not_work_as_regular_expressions(template: str, path: str) -> None:
    assert read(template, path) is None


@pytest.mark.parametrize(
    ("time_format", "text", "expected"),
    [
        ("%Y%m%dT%H%M%S", "20260131T081559", utc_ms(2026, 1, 31, 8, 15, 59)),
        ("%Y-%j", "2024-366", utc_ms(2024, 12, 31)),
        ("%Y-%j", "2025-001", utc_ms(2025, 1, 1)),
        ("%Y-%j", "2025-366", None),
        ("%Y-%j", "2025-000", None),
        ("%Y-%j", "0001-000", None),
        ("%Y-%m-%d_%j", "2026-02-01_032", utc_ms(2026, 2, 1)),
        ("%Y-%m-%d_%j", "2026-02-01_033", None),
        ("%Y%m%d-%H%M%S.%f", "20260131-081559.25", utc_ms(2026, 1, 31, 8, 15, 59) + 250),
        ("%Y%m%d-%H%M%S.%f", "20260131-081559.000999", utc_ms(2026, 1, 31, 8, 15, 59)),
        ("%Y%m%d-%H%M%S.%f", "20260131-235959.999999", utc_ms(2026, 1, 31, 23, 59, 59) + 999),
        ("%Y%m%d%H%M%S%f", "20260131081559123", utc_ms(2026, 1, 31, 8, 15, 59) + 123),
        ("%Y%m%d%H%M%S%f", "20260131081570123", None),
        ("%Y%m%d%%", "20260131%", utc_ms(2026, 1, 31)),
        ("(%Y.%m.%d)", "(2026.01.31)", utc_ms(2026, 1, 31)),
        ("(%Y.%m.%d)", "(2026x01.31)", None),
        ("%Y:%m:%d", "2026:01:31", utc_ms(2026, 1, 31)),
        ("%Y-%m-%d", "1969-12-31", -86_400_000),
    ],
)
def test_a_time_format_reads_as_its_directives_say(time_format: str, text: str, expected: int | None) -> None:
    found = read(f"{{captured_at:{time_format}}}/*", f"{text}/x.jpg")
    assert (found.captured_at_ms if found else None) == expected


def test_a_directive_that_comes_twice_must_agree_with_itself() -> None:
    template = "{captured_at:%Y-%m-%d}/{site}_{captured_at:%Y%m%dT%H%M%S}.jpg"
    assert read(template, "2026-01-31/a_20260131T081500.jpg") == (("a",), utc_ms(2026, 1, 31, 8, 15))
    assert read(template, "2026-01-31/a_20260130T081500.jpg") is None


@pytest.mark.parametrize(
    "template",
    [
        "{site",
        "site}",
        "{{site}}",
        "{}",
        "{Site}",
        "{1site}",
        "{site name}",
        "{site:%Y}",
        "{site}/{site}",
        "{captured_at}",
        "{captured_at:}",
        "{captured_at:date}",
        "{captured_at:%Y-%m-%d %H}",
        "{captured_at:%Y/%m/%d}",
        "{captured_at:%Y-%B-%d}",
        "{captured_at:%Y-%m-%d%}",
        "{captured_at:%%}",
    ],
)
def test_a_template_that_cannot_work_is_refused_with_its_text(template: str) -> None:
    with pytest.raises(ConfigError) as refused:
        PathTemplate(template)
    assert repr(template) in str(refused.value)
    assert "Example: " in str(refused.value)


@pytest.mark.parametrize(
    "template", ["{captured_at:%H}", "{captured_at:%m-%d}", "{captured_at:%Y-%m}/{captured_at:%H}"]
)
def test_a_time_that_names_no_day_is_refused_rather_than_guessed(template: str) -> None:
    with pytest.raises(ConfigError, match="names a day"):
        PathTemplate(template)


@pytest.mark.parametrize(
    ("zone", "text", "offset_hours"),
    [
        ("Europe/Berlin", "20260115T0800", 1),
        ("Europe/Berlin", "20260715T0800", 2),
        ("Europe/Berlin", "20261025T0230", 2),  # occurs twice; the first is meant
        ("Europe/Berlin", "20261025T0330", 1),
        ("Asia/Kolkata", "20260115T0800", 5.5),
        ("America/New_York", "20260308T0130", -5),
        ("America/New_York", "20260308T0330", -4),
    ],
)
def test_times_are_read_in_the_sources_time_zone(zone: str, text: str, offset_hours: float) -> None:
    found = PathTemplate("{captured_at:%Y%m%dT%H%M}").match(text, ZoneInfo(zone))
    wall = datetime.strptime(text, "%Y%m%dT%H%M").replace(tzinfo=timezone(timedelta(hours=offset_hours)))
    assert found is not None
    assert found.captured_at_ms == wall.timestamp() * 1000


@pytest.mark.parametrize(("text", "zone"), [("99991231T2330", "America/New_York"), ("00010101T0000", "Asia/Tokyo")])
def test_a_time_beyond_the_calendar_is_no_match(text: str, zone: str) -> None:
    assert PathTemplate("{captured_at:%Y%m%dT%H%M}").match(text, ZoneInfo(zone)) is None


@pytest.mark.parametrize(
    ("template", "path", "keys"),
    [
        ("{site}/*.jpg", "gs://bucket/deep/down/a/1.jpg", ("a",)),
        ("{site}/*.jpg", "/data/a/1.jpg", ("a",)),
        ("**/{site}/*.jpg", "/data/a/1.jpg", ("a",)),
        ("{name}.jpg", "/1.jpg", ("1",)),
    ],
)
def test_the_tail_of_a_path_without_a_root_is_read(template: str, path: str, keys: tuple[str, ...]) -> None:
    assert PathTemplate(template).match_tail(path) == (keys, None)


@pytest.mark.parametrize("path", ["1.jpg", "/1.jpg", "gs://1.jpg"])
def test_a_tail_that_is_too_short_is_no_match(path: str) -> None:
    assert PathTemplate("{a}/{b}/*.jpg").match_tail(path) is None


def test_depth_is_open_under_a_double_star() -> None:
    assert PathTemplate("**/{site}/*.jpg").depth is None
    assert PathTemplate("{name}.jpg").depth == 1


def test_a_template_can_be_pickled_and_compared() -> None:
    template = PathTemplate(FULL)
    copy = pickle.loads(pickle.dumps(template))
    assert copy == template
    assert copy.match("a/b/2026-01-31/08/x.jpg") == template.match("a/b/2026-01-31/08/x.jpg")


NAMES = st.text(st.characters(blacklist_characters="/", blacklist_categories=("Cs",)), min_size=1, max_size=12)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))


@given(site=NAMES, camera=NAMES, time=TIMES, name=NAMES)
def test_what_is_written_by_a_template_is_read_back(site: str, camera: str, time: datetime, name: str) -> None:
    # strftime pads years before 1000 only on some platforms.
    day = f"{time.year:04d}-{time:%m-%d}"
    found = read(FULL, f"{site}/{camera}/{day}/{time:%H}/{name}.jpg")
    hour = time.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)
    site, camera = (unicodedata.normalize("NFC", key) for key in (site, camera))  # one group, however a name is written
    assert found == ((site, camera), (hour - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))


@given(time=TIMES)
def test_a_time_is_kept_to_the_millisecond_it_lies_in(time: datetime) -> None:
    text = f"{time.year:04d}{time:%m%dT%H%M%S_%f}"
    found = read("{captured_at:%Y%m%dT%H%M%S_%f}", text)
    assert found is not None
    kept = datetime(1970, 1, 1) + timedelta(milliseconds=found.captured_at_ms or 0)
    assert kept == time.replace(microsecond=time.microsecond // 1000 * 1000)


@given(time=TIMES, hours=st.integers(-12, 14))
def test_an_offset_of_the_time_itself_beats_the_sources_time_zone(time: datetime, hours: int) -> None:
    aware = time.replace(microsecond=0, tzinfo=timezone(timedelta(hours=hours)))
    expected = (time.replace(microsecond=0) - timedelta(hours=hours) - datetime(1970, 1, 1)).total_seconds() * 1000
    assert epoch_ms(aware, UTC) == expected


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "template", ["{a}-{b}-{c}-{d}-{e}.jpg", "{site}/{a}-{b}_{c}-{d}/*.jpg", "{a}-{b}-{c}-{d}-{e}-*"]
)
def test_a_name_made_to_be_tried_in_every_way_takes_no_time(template):
    compiled = PathTemplate(template)
    for name in ("a-" * 20_000, "-" * 20_000, "site/" + "a-_" * 10_000 + "/x.gif"):
        compiled.match(name)


@settings(deadline=None)
@given(
    st.sampled_from(
        ["{a}-{b}", "{a}-{b}-{c}.jpg", "{a}-*", "{a}_{b}-{c}", "{a}/{b}-{c}/*", "{a}--{b}", "{a}-**", "x{a}-{b}y"]
    ),
    st.text("ab-_/.xyjpg", max_size=14),
)
def test_keys_end_where_they_can_end_first(template, path):
    """Compared with a plain regular expression in which each key is as short as the rest allows."""
    plain = re.escape(template)
    for written, pattern in ((r"\{", "{"), (r"\}", "}"), (r"\*\*", ".*"), (r"\*", "[^/]*")):
        plain = plain.replace(written, pattern)
    plain = re.sub(r"\{(.)\}", r"(?P<\1>[^/]+?)", plain)
    expected = re.fullmatch(plain, path, re.DOTALL)
    found = PathTemplate(template).match(path)
    assert (found and found.keys) == (expected and expected.groups())
