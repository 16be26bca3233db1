"""Resolved settings of a scoring run, in which nothing is left to the model, this machine or the source."""

from __future__ import annotations

from maskdet.config import (
    CodecsName,
    ComplianceSettings,
    FacesMode,
    FacesSettings,
    ImagingSettings,
    KeyName,
    ModelSettings,
    Precision,
    ScoreSettings,
)
from maskdet.sections import VideoMode, VideoSettings


class ResolvedImaging(ImagingSettings):
    """Imaging settings with the codecs chosen."""

    codecs: CodecsName


class ResolvedVideo(VideoSettings):
    """Video settings with the mode chosen."""

    mode: VideoMode


class ResolvedFaces(FacesSettings):
    """Face settings with the mode chosen."""

    mode: FacesMode


class ResolvedModel(ModelSettings):
    """Model settings with backend and precision chosen."""

    backend: KeyName
    precision: Precision


class ResolvedCompliance(ComplianceSettings):
    """Compliance settings with clusters and time zone chosen."""

    cluster: tuple[KeyName, ...]
    time_zone: str


class ResolvedSettings(ScoreSettings):
    """Everything that a scoring run does: settings in which nothing is left to the model or this machine.

    A run is scored, fingerprinted and recorded by these; :func:`maskdet.scoring.setup.resolve_settings` makes them once
    from the given settings.
    """

    imaging: ResolvedImaging
    video: ResolvedVideo
    faces: ResolvedFaces
    model: ResolvedModel
    compliance: ResolvedCompliance
