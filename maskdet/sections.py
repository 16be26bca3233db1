"""The base of every section of settings, and some of the sections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
OpenRatio = Annotated[float, Field(gt=0.0, lt=1.0)]
"""Neither 0 nor 1."""
Positive = Annotated[float, Field(gt=0.0)]
Times = Annotated[float, Field(ge=1.0, allow_inf_nan=False)]
"""A factor of 1 or more."""
KeyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]

VideoMode = Literal["score", "skip"]


class Section(BaseModel):
    """Base of every settings section: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoSettings(Section):
    """Which files are videos, and which of their frames are used."""

    mode: Literal["auto", VideoMode] = "auto"
    """What to do with videos: ``score`` them, or ``skip`` them like other files that are not images. Reading them needs
    the extra ``video`` on every worker; ``auto`` is ``score`` if the machine that launches the run has it."""
    extensions: tuple[str, ...] = (
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "flv"),
        *("wmv", "asf"),
    )
    """Files with these extensions are videos."""
    frames: Literal["sampled", "keyframes", "all"] = "sampled"
    """``sampled``: some per second. ``keyframes``: those at which decoding can begin, which are the cheapest.
    ``all``: every frame."""
    frames_per_second: Annotated[float, Field(gt=0.0, le=1000.0)] = 2.0
    """Frames to use per second, where they are ``sampled``: the first frame shown in each interval of a grid that
    counts from the start of the video."""
    max_seconds: Positive | None = None
    """Ignore what comes later in a video. Default: read all of it."""
    segment_seconds: Positive = 120.0
    """Longer videos are cut into segments that workers can share. This changes no row."""


class TrackSettings(Section):
    """How faces in a video's frames become tracks of people; only where faces are searched for."""

    max_gap_seconds: Positive = 2.0
    """How long a face may be out of sight and still belong to the same person when it comes back."""
    sure_from: Ratio = 0.4
    """Faces with a lower detection score continue tracks but do not start any."""
    change_frames: Count = 3
    """How many frames in a row have to agree before a mask counts as put on, taken off, slipped or put right."""
    min_frames: Count = 2
    """Tracks with fewer frames are in the table but do not count in rates: a single box in one frame may be anything.
    """


class PrivacySettings(Section):
    """What tables hide so that they can be passed on: names of images, and small groups of the compliance tables."""

    uri: Literal["plain", "hmac"] = "plain"
    """``hmac``: names of images are replaced by keyed hashes in tables, records, logs and pages. Keys and folders of
    the output still say what the template reads from paths, and the predictions still have a row for every face."""
    uri_key: Annotated[str, Field(pattern=r"^(env|file):.+$")] = "env:MASKDET_URI_KEY"
    """Where each process finds the key of those hashes: ``env:NAME`` or ``file:PATH``. The key itself is never
    recorded."""

    min_cell: Annotated[int, Field(ge=0, le=1000)] = 0
    """Smallest count other than 0 that is shown. Groups with smaller ones are hidden, together with others from which
    they could be worked out. 0: all counts are shown."""
    round_to: Annotated[int, Field(ge=1, le=1000)] = 1
    """Round all counts to multiples of this, and compute rates from the rounded counts."""

    @property
    def hides(self) -> bool:
        """Whether groups may be hidden, so that a table can only be written with those of all levels at hand."""
        return self.min_cell > 1

    @property
    def guards(self) -> bool:
        """Whether tables show less than there is."""
        return self.hides or self.round_to > 1


class FailureBudget(Section):
    """How many images may fail before a run counts as failed."""

    max_images: CountOrZero | None = None
    """Most images that may fail. Default: only the ratio is a limit."""
    max_ratio: Ratio = 0.05
    """Largest share of the images that may fail."""
