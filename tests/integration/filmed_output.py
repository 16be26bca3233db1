"""An output with people in videos: a film that browsers can play, one that they cannot, and images."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.test_score_tracks import background, drawn
from tests.video.clips import Actor, film, play

SECONDS = 6.0
LEVELS = "{by_site: [site], daily: [site, date]}"
FLAGS = (
    *("--template", "{site}/{captured_at:%Y-%m-%dT%H-%M-%S}.*", "--set", f"compliance.levels={LEVELS}"),
    *("--set", "video.frames_per_second=3"),
)


def write_films(folder: Path, images: list[Path]) -> None:
    """Write a film and an image for each site.

    North: two people who meet, one of whom puts a mask on, as MPEG-TS, which browsers do not play. South: one person.
    """
    for site in ("north", "south"):
        (folder / site).mkdir(parents=True)
    actors = [
        Actor(drawn(2, False), (80, 90), (85, 0)),
        Actor(drawn(3, False), (560, 270), (-40, 0), (0.0, 3.0)),
        Actor(drawn(3, True), (440, 270), (-40, 0), (3.0, SECONDS)),
    ]
    film(folder / "north" / "2026-03-02T08-00-00.ts", play(actors, background(), SECONDS), gop=12)
    alone = [Actor(drawn(3, False), (100, 180), (60, 0), (1.0, 5.0))]
    film(
        folder / "south" / "2026-03-03T09-30-00.webm",
        play(alone, background(1), SECONDS),
        codec="libvpx-vp9",
        options={"cpu-used": "8", "deadline": "realtime"},
        gop=50,
    )
    for site, image in zip(("north", "south"), images, strict=True):
        shutil.copy(image, folder / site / "2026-03-02T07-00-00.jpg")


def score_films(score, demo, folder: Path):
    """Write and score the films; returns the output."""
    write_films(folder / "in", sorted(demo.folder.rglob("*.jpg"))[:2])
    output = score(folder / "tables", folder / "in", template=None, faces="detect", flags=FLAGS)
    assert output.code == 0
    return output
