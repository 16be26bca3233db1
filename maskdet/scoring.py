"""Score one shard: fetch → decode → block → infer → Arrow, threaded, knowing nothing of Beam.

Each thread of a pool takes a block of images, reads and decodes them straight into the block's rows, and runs the model
on it; nothing is handed from thread to thread. Pillow, hashing, file reads and the model all release the interpreter
lock, so the threads of one process use every core and share one model. A broken image leaves its row of the block
unused and becomes a failure row; its neighbours never notice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from maskdet import storage
from maskdet.errors import FailureCode, ImageFault
from maskdet.fetching import Fetcher, reading_threads
from maskdet.imaging import ImageLimits, prepare_image
from maskdet.model.backends import Images, Model, Probabilities
from maskdet.model.manifest import Decision
from maskdet.packing import KeyRule
from maskdet.records import ImageRef, Shard, ShardResult, StageSeconds, failures_schema, predictions_schema


@dataclass(frozen=True)
class ScoreOptions:
    """What scoring needs to know beside the model.

    Attributes:
        rule: the run's keys.
        decision: thresholds of the labels.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where allowed.
        fetch_attempts: tries to read an image whose store answers with a transient error.
        threads: blocks under way at a time; default: one a core, four a core for images read over a network.
    """

    rule: KeyRule
    decision: Decision = Decision()
    limits: ImageLimits = ImageLimits()
    jpeg_draft: bool = True
    fetch_attempts: int = 4
    threads: int | None = None


class _Prepared(NamedTuple):
    content_sha256: str
    width_px: int
    height_px: int
    size_bytes: int


class _Scored(NamedTuple):
    image: _Prepared
    probability: float


class _Outcomes(NamedTuple):
    """How each image of a block ended, in order, and thread-seconds."""

    images: list[_Scored | ImageFault]
    seconds: StageSeconds


class Scorer:
    """Scores shards with one model; safe to call from several threads, which then share its pools."""

    def __init__(
        self,
        model: Model,
        options: ScoreOptions,
        *,
        read: Callable[[str], bytes] = storage.read_bytes,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self.options = options
        self._fetcher = Fetcher(options.limits.max_bytes, options.fetch_attempts, read, sleep)
        local, remote = (options.threads or reading_threads(local=local) for local in (True, False))
        self._local_pool = ThreadPoolExecutor(local, thread_name_prefix="score")
        self._remote_pool = ThreadPoolExecutor(remote, thread_name_prefix="score-remote")

    def score_shard(self, shard: Shard, on_progress: Callable[[int], None] = lambda images: None) -> ShardResult:
        """Score every image of a shard.

        Args:
            shard: what to score.
            on_progress: told, block by block, how many images were finished.

        Returns: One row a face and one row a failed image, in the order of the shard's references. Rows depend on the
        images, the model and the options alone.
        """
        pool = self._local_pool if storage.is_local(shard.refs[0].uri) else self._remote_pool
        size = self.model.block_images
        blocks = [pool.submit(self._score_block, shard.refs[i : i + size]) for i in range(0, len(shard.refs), size)]
        images: list[_Scored | ImageFault] = []
        seconds = StageSeconds()
        try:
            for block in blocks:
                outcomes = block.result()
                images += outcomes.images
                seconds += outcomes.seconds
                on_progress(len(outcomes.images))
        finally:
            for block in blocks:  # after an error nobody waits for the rest
                block.cancel()
        return self._result(list(zip(shard.refs, images, strict=True)), seconds)

    def _score_block(self, refs: Sequence[ImageRef]) -> _Outcomes:
        spec = self.model.manifest.input
        # Rows of failed images stay zero: the model sees them, nobody reads the result.
        pixels = np.zeros((len(refs), spec.height, spec.width, 3), np.uint8)
        clock = _StageClock()
        prepared = [self._prepare(ref, row, clock) for ref, row in zip(refs, pixels, strict=True)]
        images: list[_Scored | ImageFault] = [image for image in prepared if isinstance(image, ImageFault)]
        if len(images) < len(refs):
            clock.start()
            images = [_join(*pair) for pair in zip(prepared, self._infer(pixels), strict=True)]
            clock.stop("infer")
        return _Outcomes(images, clock.seconds)

    def _prepare(self, ref: ImageRef, row: Images, clock: _StageClock) -> _Prepared | ImageFault:
        """Fetch and decode one image into its row of a block."""
        spec = self.model.manifest.input
        try:
            if ref.problem is not None:
                code, message = ref.problem
                raise ImageFault(FailureCode(code), message, attempts=0)
            clock.start()
            data = self._fetcher.fetch(ref)
            clock.stop("fetch")
            image = prepare_image(
                data,
                spec.height,
                spec.width,
                self.options.limits,
                resize_filter=spec.resize_filter,
                jpeg_draft=self.options.jpeg_draft,
            )
            row[:] = image.pixels
            digest = hashlib.sha256(data).hexdigest()
            clock.stop("decode")
            return _Prepared(digest, image.width_px, image.height_px, len(data))
        except ImageFault as fault:
            return fault

    def _infer(self, pixels: Images) -> list[float | ImageFault]:
        """Probabilities of a block's images, with faults in place of those that have none."""
        try:
            return _checked(self.model.predict(pixels))
        except Exception:  # one image alone may be what the runtime chokes on
            return [self._infer_one(pixels[i : i + 1]) for i in range(len(pixels))]

    def _infer_one(self, pixels: Images) -> float | ImageFault:
        try:
            return _checked(self.model.predict(pixels))[0]
        except Exception as error:
            return ImageFault(FailureCode.INFERENCE_ERROR, f"the model raised {type(error).__name__}")

    def _result(self, outcomes: list[tuple[ImageRef, _Scored | ImageFault]], seconds: StageSeconds) -> ShardResult:
        scored = [(ref, outcome) for ref, outcome in outcomes if isinstance(outcome, _Scored)]
        failed = [(ref, outcome) for ref, outcome in outcomes if isinstance(outcome, ImageFault)]
        return ShardResult(
            predictions=self._predictions(scored),
            failures=self._failures(failed),
            size_bytes=sum(outcome.image.size_bytes for _, outcome in scored),
            seconds=seconds,
        )

    def _predictions(self, scored: list[tuple[ImageRef, _Scored]]) -> pa.Table:
        rule = self.options.rule
        schema = predictions_schema(rule.column_names)
        images = [outcome.image for _, outcome in scored]
        probabilities = np.array([outcome.probability for _, outcome in scored], np.float32)
        rows = len(scored)
        columns = {
            **self._identity([ref for ref, _ in scored], rule.column_names),
            "content_sha256": [image.content_sha256 for image in images],
            "width_px": [image.width_px for image in images],
            "height_px": [image.height_px for image in images],
            "face_index": [0] * rows,
            **{
                name: [None] * rows for name in schema.names if name.startswith("face_") and schema.field(name).nullable
            },
            "probability_mask": probabilities,
            "label": label(probabilities, self.options.decision),
            "model_id": [self.model.manifest.model_id] * rows,
        }
        return pa.table(columns, schema=schema)

    def _failures(self, failed: list[tuple[ImageRef, ImageFault]]) -> pa.Table:
        columns = {
            **self._identity([ref for ref, _ in failed], self.options.rule.all_names),
            "stage": [fault.code.stage.value for _, fault in failed],
            "code": [fault.code.value for _, fault in failed],
            "message": [fault.message for _, fault in failed],
            "attempts": [fault.attempts for _, fault in failed],
        }
        return pa.table(columns, schema=failures_schema(self.options.rule.all_names))

    def _identity(self, refs: list[ImageRef], key_names: Sequence[str]) -> dict[str, list[object]]:
        rule = self.options.rule
        return {
            "image_uri": [ref.uri for ref in refs],
            "captured_at": [ref.captured_at_ms for ref in refs],
            **{name: [rule.value(ref, name) for ref in refs] for name in key_names},
        }


class _StageClock:
    """Adds up what one thread spends in each stage."""

    def __init__(self) -> None:
        self.seconds = StageSeconds()
        self._since = 0.0

    def start(self) -> None:
        self._since = time.perf_counter()

    def stop(self, stage: str) -> None:
        """Count the time since the last start or stop for a stage."""
        now = time.perf_counter()
        self.seconds += StageSeconds(**{stage: now - self._since})
        self._since = now


def _join(prepared: _Prepared | ImageFault, probability: float | ImageFault) -> _Scored | ImageFault:
    if isinstance(prepared, ImageFault):
        return prepared
    return probability if isinstance(probability, ImageFault) else _Scored(prepared, probability)


def label(probabilities: Probabilities, decision: Decision) -> list[str]:
    """Labels of probabilities: ``mask`` from one threshold up, ``no_mask`` below the other, else ``uncertain``.

    Args:
        probabilities: float32 ``(n,)``.
        decision: the thresholds; compared in double precision, so that a table read back gives the same labels.
    """
    values = probabilities.astype(np.float64)
    names = np.where(
        values >= decision.mask_from, "mask", np.where(values < decision.no_mask_below, "no_mask", "uncertain")
    )
    return [str(name) for name in names]


def _checked(probabilities: Probabilities) -> list[float | ImageFault]:
    fault = ImageFault(FailureCode.NOT_FINITE, "the model gave no finite probability")
    return [float(value) if np.isfinite(value) else fault for value in probabilities]
