"""The fingerprint of a run, which distinguishes one way of scoring from another."""

from __future__ import annotations

import hashlib
import json

from maskdet.faces.detection import view_identity
from maskdet.images.codecs import codecs_identity
from maskdet.labels import Decision
from maskdet.model.backends import RuntimeSpec
from maskdet.model.manifest import Manifest
from maskdet.resolved import ResolvedSettings
from maskdet.schemas import SCHEMA_VERSION

# Raised when the code gives other rows for the same images, model and settings, so that older shards are scored again.
SCORING_REVISION = 2


def scoring_fingerprint(settings: ResolvedSettings, manifest: Manifest, spec: RuntimeSpec, decision: Decision) -> str:
    """SHA-256 of everything that a prediction row depends on, except the image.

    Threads, block sizes and shard limits are not part of it: they change no row.
    """
    return _sha256([*_content(settings, manifest, spec), decision.model_dump(mode="json")])


def probability_fingerprint(settings: ResolvedSettings, manifest: Manifest, spec: RuntimeSpec) -> str:
    """SHA-256 of everything that a row depends on, except the image and, since it follows from the rest, its label."""
    return _sha256(_content(settings, manifest, spec))


def _content(settings: ResolvedSettings, manifest: Manifest, spec: RuntimeSpec) -> list[object]:
    return [
        SCHEMA_VERSION,
        SCORING_REVISION,
        manifest.fingerprint,
        spec.output_name,
        spec.runtime_version,
        codecs_identity(settings.imaging.codecs),
        settings.imaging.model_dump(mode="json"),
        view_identity(settings.faces),
        [settings.source.key_names, settings.partition_by, settings.source.timezone],
    ]


def _sha256(content: list[object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
