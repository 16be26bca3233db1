"""What every section of settings is made of, and the sections that have a file of their own."""

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
"""A factor that makes nothing smaller."""
KeyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]

VideoMode = Literal["score", "skip"]


class Section(BaseModel):
    """Base of every settings section: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoSettings(Section):
    """Which files are videos, and which of their frames are looked at."""

    mode: Literal["auto", VideoMode] = "auto"
    """What becomes of videos: ``score`` them, or ``skip`` them as other files that are no images. Reading them needs
    the extra ``video`` on every worker; ``auto`` is ``score`` if the machine that launches the run has it."""
    extensions: tuple[str, ...] = (
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "mkv", "webm", "avi", "ts", "m2ts", "mts", "mpg", "mpeg", "flv"),
        *("wmv", "asf"),
    )
    """Files with these extensions are videos."""
    frames: Literal["sampled", "keyframes", "all"] = "sampled"
    """``sampled``: so many a second. ``keyframes``: those that a file can be entered at, which are the cheapest.
    ``all``: every frame."""
    frames_per_second: Annotated[float, Field(gt=0.0, le=1000.0)] = 2.0
    """Frames to look at in each second, where they are ``sampled``: of each interval of the grid, which counts from the
    start of the video, the first frame shown in it."""
    max_seconds: Positive | None = None
    """What comes later in a video is not read. Default: all of it."""
    segment_seconds: Positive = 120.0
    """Longer videos are cut, so that several workers share them. Changes no row."""


class TrackSettings(Section):
    """How faces of a video's frames become tracks of people; of faces that were searched for only."""

    max_gap_seconds: Positive = 2.0
    """How long a face may be out of sight and be the same person's when it comes back."""
    sure_from: Ratio = 0.4
    """Faces with a lower detection score go on with tracks, and start none."""
    change_frames: Count = 3
    """Frames in a row that have to say so before a mask counts as put on, taken off, slipped or put right."""
    min_frames: Count = 2
    """Tracks of fewer frames are in the table, and in no rate: one box in one frame may be anything."""


class PrivacySettings(Section):
    """What tables hide, so that they can be passed on: names of images, and small groups of the compliance tables."""

    uri: Literal["plain", "hmac"] = "plain"
    """``hmac``: names of images are replaced by keyed hashes in tables, records, logs and pages. Keys and folders of
    the output still say what the template reads of paths. The predictions hold every face all the same."""
    uri_key: Annotated[str, Field(pattern=r"^(env|file):.+$")] = "env:MASKDET_URI_KEY"
    """Where each process finds the key of those hashes: ``env:NAME`` or ``file:PATH``. The key is recorded nowhere."""

    min_cell: Annotated[int, Field(ge=0, le=1000)] = 0
    """Smallest count, beside 0, that is shown. A group with a smaller one is hidden, and others with it, from which it
    could be worked out. 0: all counts are shown."""
    round_to: Annotated[int, Field(ge=1, le=1000)] = 1
    """Round all counts to multiples of this, and compute rates of the rounded ones."""

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
    """Most images that may fail. Default: no limit but the ratio."""
    max_ratio: Ratio = 0.05
    """Largest share of the images that may fail."""
