"""Score one shard: fetch → decode → block → infer → Arrow, threaded, knowing nothing of Beam.

A pool of threads reads and decodes images straight into the rows of preallocated blocks; full blocks go through the
model on a second pool, while the next ones fill. Pillow, hashing, file reads and the model all release the interpreter
lock, so threads of one process use every core and share one model. A broken image leaves its row of the block unused
and becomes a failure row; its neighbours never notice.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from maskdet import storage
from maskdet.errors import AccessDeniedError, FailureCode, ImageFault, NotFoundError, StorageError
from maskdet.imaging import ImageLimits, prepare_image
from maskdet.model.backends import Images, Model, Probabilities
from maskdet.model.manifest import Decision
from maskdet.packing import KeyRule
from maskdet.records import ImageRef, Shard, ShardResult, StageSeconds, failures_schema, predictions_schema

# Images a decode task: handing over one costs the interpreter lock about as much as 3 % of decoding it.
_TASK_IMAGES = 4
# A read over the network waits most of its time.
_REMOTE_THREADS_PER_CORE = 4
_FIRST_BACKOFF_S = 0.2


@dataclass(frozen=True)
class ScoreOptions:
    """What scoring needs to know beside the model.

    Attributes:
        rule: the run's keys.
        decision: thresholds of the labels.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where allowed.
        fetch_attempts: tries to read an image whose store answers with a transient error.
        decode_threads: default: one a core, four a core for images read over a network.
        inference_threads: default: one a core.
    """

    rule: KeyRule
    decision: Decision = Decision()
    limits: ImageLimits = ImageLimits()
    jpeg_draft: bool = True
    fetch_attempts: int = 4
    decode_threads: int | None = None
    inference_threads: int | None = None


class _Prepared(NamedTuple):
    content_sha256: str
    width_px: int
    height_px: int
    size_bytes: int
    fetch_s: float
    decode_s: float


@dataclass
class _Block:
    """A block on its way: images ``refs[i]`` decode into ``pixels[i]``."""

    refs: Sequence[ImageRef]
    pixels: Images
    tasks: list[Future[list[_Prepared | ImageFault]]]
    predictions: Future[tuple[list[float | ImageFault], float]] | None = None
    prepared: list[_Prepared | ImageFault] = field(default_factory=list)


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
        self._read = read
        self._sleep = sleep
        self._jitter = random.Random()  # spreads retries only; no result depends on it
        cores = available_cores()
        decode = options.decode_threads
        self._inference_threads = options.inference_threads or cores
        self._local_pool = ThreadPoolExecutor(decode or cores, thread_name_prefix="decode")
        self._remote_pool = ThreadPoolExecutor(decode or cores * _REMOTE_THREADS_PER_CORE, thread_name_prefix="fetch")
        self._inference_pool = ThreadPoolExecutor(self._inference_threads, thread_name_prefix="infer")

    def score_shard(self, shard: Shard, on_progress: Callable[[int], None] = lambda images: None) -> ShardResult:
        """Score every image of a shard.

        Args:
            shard: what to score.
            on_progress: told, block by block, how many images were finished.

        Returns: One row a face and one row a failed image, in the order of the shard's references. Rows depend on the
        images, the model and the options alone.
        """
        outcomes: list[tuple[ImageRef, _Prepared | ImageFault, float]] = []
        infer_s = 0.0
        for block in self._scored_blocks(shard.refs):
            assert block.predictions is not None  # set when the block was submitted to the model
            probabilities, seconds = block.predictions.result()
            infer_s += seconds
            for ref, prepared, probability in zip(block.refs, block.prepared, probabilities, strict=True):
                if isinstance(probability, ImageFault):
                    outcomes.append((ref, probability, 0.0))
                else:
                    outcomes.append((ref, prepared, probability))
            on_progress(len(block.refs))
        return self._result(outcomes, infer_s)

    def _scored_blocks(self, refs: Sequence[ImageRef]) -> Iterator[_Block]:
        """Blocks in order, each decoded and through the model, with as many more under way as keep both pools busy."""
        size = self.model.block_images
        decoding: deque[_Block] = deque()
        inferring: deque[_Block] = deque()
        for start in range(0, len(refs), size):
            decoding.append(self._start_decoding(refs[start : start + size]))
            if len(decoding) > 2:
                inferring.append(self._start_inference(decoding.popleft()))
            if len(inferring) > self._inference_threads:
                yield inferring.popleft()
        while decoding:
            inferring.append(self._start_inference(decoding.popleft()))
        yield from inferring

    def _start_decoding(self, refs: Sequence[ImageRef]) -> _Block:
        spec = self.model.manifest.input
        # Rows of failed images stay zero: the model sees them, nobody reads the result.
        pixels = np.zeros((len(refs), spec.height, spec.width, 3), np.uint8)
        pool = self._local_pool if storage.is_local(refs[0].uri) else self._remote_pool
        starts = range(0, len(refs), _TASK_IMAGES)
        tasks = [
            pool.submit(self._prepare_all, refs[i : i + _TASK_IMAGES], pixels[i : i + _TASK_IMAGES]) for i in starts
        ]
        return _Block(refs, pixels, tasks)

    def _start_inference(self, block: _Block) -> _Block:
        block.prepared = [outcome for task in block.tasks for outcome in task.result()]
        block.predictions = self._inference_pool.submit(self._infer, block)
        return block

    def _prepare_all(self, refs: Sequence[ImageRef], pixels: Images) -> list[_Prepared | ImageFault]:
        return [self._prepare(ref, row) for ref, row in zip(refs, pixels, strict=True)]

    def _prepare(self, ref: ImageRef, row: Images) -> _Prepared | ImageFault:
        """Fetch and decode one image into its row of a block."""
        spec = self.model.manifest.input
        try:
            if ref.problem is not None:
                code, message = ref.problem
                raise ImageFault(FailureCode(code), message, attempts=0)
            started = time.perf_counter()
            data = self._fetch(ref)
            fetched = time.perf_counter()
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
            decode_s = time.perf_counter() - fetched
            return _Prepared(digest, image.width_px, image.height_px, len(data), fetched - started, decode_s)
        except ImageFault as fault:
            return fault

    def _fetch(self, ref: ImageRef) -> bytes:
        limit = self.options.limits.max_bytes
        if ref.size_bytes > limit:
            message = f"{ref.size_bytes} bytes, more than imaging.max_bytes = {limit}"
            raise ImageFault(FailureCode.TOO_MANY_BYTES, message, attempts=0)
        attempts = self.options.fetch_attempts
        for attempt in range(1, attempts + 1):
            try:
                return self._read(ref.uri)
            except NotFoundError:
                raise ImageFault(FailureCode.NOT_FOUND, "nothing exists at the URI", attempt) from None
            except AccessDeniedError:
                raise ImageFault(FailureCode.ACCESS_DENIED, "the store refuses access", attempt) from None
            except StorageError as error:
                if attempt == attempts:
                    raise ImageFault(FailureCode.READ_ERROR, str(error), attempt) from error
                backoff_s = _FIRST_BACKOFF_S * 2 ** (attempt - 1)
                self._sleep(backoff_s * self._jitter.uniform(0.5, 1.5))
        raise AssertionError("the last attempt returns or raises")

    def _infer(self, block: _Block) -> tuple[list[float | ImageFault], float]:
        """Probabilities of a block's images, with faults in place of those that have none, and seconds."""
        started = time.perf_counter()
        probabilities: list[float | ImageFault]
        if all(isinstance(outcome, ImageFault) for outcome in block.prepared):
            return [outcome for outcome in block.prepared if isinstance(outcome, ImageFault)], 0.0
        try:
            probabilities = _checked(self.model.predict(block.pixels))
        except Exception:  # one image alone may be what the runtime chokes on
            probabilities = [self._infer_one(block.pixels[i : i + 1]) for i in range(len(block.refs))]
        outcomes = [
            prepared if isinstance(prepared, ImageFault) else probability
            for prepared, probability in zip(block.prepared, probabilities, strict=True)
        ]
        return outcomes, time.perf_counter() - started

    def _infer_one(self, pixels: Images) -> float | ImageFault:
        try:
            return _checked(self.model.predict(pixels))[0]
        except Exception as error:
            return ImageFault(FailureCode.INFERENCE_ERROR, f"the model raised {type(error).__name__}")

    def _result(self, outcomes: list[tuple[ImageRef, _Prepared | ImageFault, float]], infer_s: float) -> ShardResult:
        scored = [(ref, image, value) for ref, image, value in outcomes if isinstance(image, _Prepared)]
        failed = [(ref, fault) for ref, fault, _ in outcomes if isinstance(fault, ImageFault)]
        images = [image for _, image, _ in scored]
        seconds = StageSeconds(sum(i.fetch_s for i in images), sum(i.decode_s for i in images), infer_s)
        return ShardResult(
            predictions=self._predictions(scored),
            failures=self._failures(failed),
            size_bytes=sum(image.size_bytes for image in images),
            seconds=seconds,
        )

    def _predictions(self, scored: list[tuple[ImageRef, _Prepared, float]]) -> pa.Table:
        schema = predictions_schema(self.options.rule.column_names)
        probabilities = np.array([value for _, _, value in scored], np.float32)
        rows = len(scored)
        columns = {
            **self._identity([ref for ref, _, _ in scored], self.options.rule.column_names),
            "content_sha256": [image.content_sha256 for _, image, _ in scored],
            "width_px": [image.width_px for _, image, _ in scored],
            "height_px": [image.height_px for _, image, _ in scored],
            "face_index": [0] * rows,
            **{
                name: [None] * rows for name in schema.names if schema.field(name).nullable and name.startswith("face_")
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


def available_cores() -> int:
    """Cores this process may use: its affinity, and its control group's quota, which containers set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return cores if quota == "max" else max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):
        return cores


def _checked(probabilities: Probabilities) -> list[float | ImageFault]:
    fault = ImageFault(FailureCode.NOT_FINITE, "the model gave no finite probability")
    return [float(value) if np.isfinite(value) else fault for value in probabilities]
