"""Score one shard: fetch → decode → faces → infer → Arrow, with threads and without Beam.

Each thread of a pool takes a part of the shard, a few blocks of images, reads and decodes them, finds their faces if
asked to, and runs the model on all their faces, block by block; nothing is handed from thread to thread. Decoders,
hashing, file reads and the models all release the interpreter lock, so the threads of one process use every core and
share one model. Images of a store are read ahead, by many more threads, as far as :data:`READ_AHEAD` allows. A broken
image becomes a failure row and does not affect its neighbours.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from maskdet import storage
from maskdet.config import CodecsName
from maskdet.cores import available_cores
from maskdet.errors import FailureCode, ImageFault, MaskdetError
from maskdet.faces.detection import make_viewer
from maskdet.faces.extraction import FaceBox, StageClock, View, Viewer
from maskdet.images.codecs import Pixels, load_codecs
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.pseudonyms import told
from maskdet.inputs.references import ImageRef, Shard
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import INCORRECT, MASK, NO_MASK, Decision, class_columns, label_codes, label_names
from maskdet.model.backends import Images, Model, Probabilities
from maskdet.resolved import ResolvedFaces
from maskdet.schemas import failures_schema, key_value, no_face_schema, predictions_schema
from maskdet.scoring.fetching import Fetcher, fetching_threads
from maskdet.scoring.outcomes import Outcomes, Scored, Seen, Subject, count_segments
from maskdet.scoring.segments import SegmentReader
from maskdet.tables.results import ShardResult, StageSeconds

# Reads of a shard that may be under way or waiting to be scored, as a multiple of those that run concurrently. Enough
# that no reader waits for the scorers' turn; 2 cores then hold at most 256 images of a shard, and never more bytes than
# it has.
READ_AHEAD = 2

# Blocks that a thread decodes before it runs the model on them. Turning from one to the other after every block costs
# 6 % of both (measured), since each finds the core's caches full of the other's.
BLOCKS_A_PART = 4

_NO_PIXELS = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class ScoreOptions:
    """What scoring needs besides the model.

    Attributes:
        rule: the run's keys.
        decision: thresholds of the labels.
        limits: byte and pixel limits.
        jpeg_draft: decode JPEGs at reduced scale where allowed.
        codecs: who decodes and resizes.
        faces: how faces are found; the scorer's viewer is made from it.
        fetch_attempts: how often to try to read an image whose store answers with a transient error.
        threads: how many parts of a shard are processed concurrently; default: one per core.
        fetch_threads: how many images of a store are read concurrently; default: 64 per core.
    """

    rule: KeyRule
    decision: Decision = Decision()
    limits: ImageLimits = ImageLimits()
    jpeg_draft: bool = True
    codecs: CodecsName = "pillow"
    faces: ResolvedFaces = ResolvedFaces(mode="whole")
    fetch_attempts: int = 4
    threads: int | None = None
    fetch_threads: int | None = None


class _Part(NamedTuple):
    """A part of a shard in progress, and the reads that it waits for."""

    outcomes: Future[Outcomes]
    reads: Sequence[Future[bytes]]

    def cancel(self) -> None:
        """Drop reads that have not begun."""
        self.outcomes.cancel()
        for read in self.reads:
            read.cancel()


class _Arrivals:
    """Hands out a part's images in the order in which they were asked for, each once it has arrived."""

    def __init__(self, reads: Sequence[Future[bytes]]) -> None:
        self._reads = iter(reads)

    def __call__(self, ref: ImageRef) -> bytes:
        """The next image's bytes, or its fault."""
        return next(self._reads).result()


def load_viewer(model: Model, options: ScoreOptions, threads: int = 1) -> Viewer:
    """What finds the faces in a run's images.

    Args:
        model: the one that gets the faces.
        options: the run's.
        threads: how many images are searched concurrently.

    Raises:
        ModelError: the detector's bundle is missing or damaged, or does not reproduce its golden outputs.
        ConfigError: the packages of the codecs are not installed on this machine.
    """
    return make_viewer(
        options.faces,
        model.manifest.input,
        options.limits,
        jpeg_draft=options.jpeg_draft,
        threads=threads,
        codecs=load_codecs(options.codecs),
    )


class Scorer:
    """Scores shards with one model; may be called from several threads, which then share its pools.

    Args:
        model: gives a face's probability.
        options: limits, thresholds, threads.
        viewer: finds the faces of an image; default: the options', on one thread at a time.
        read: reads a file's bytes; default: the storage's.
        sleep: waits between tries.
    """

    def __init__(
        self,
        model: Model,
        options: ScoreOptions,
        viewer: Viewer | None = None,
        *,
        read: Callable[[str], bytes] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self.options = options
        self._viewer = viewer or load_viewer(model, options)
        self._fetcher = Fetcher(options.limits.max_bytes, options.fetch_attempts, read, sleep)
        self._threads = options.threads or available_cores()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="score")
        self._readers = options.fetch_threads or fetching_threads()
        self._fetch_pool = ThreadPoolExecutor(self._readers, thread_name_prefix="fetch")
        block = BLOCKS_A_PART * model.block_images
        apart = options.limits.isolated_s
        self._segments = SegmentReader(self._look, self._score_seen, block, options.fetch_attempts, sleep, apart)

    def score_shard(self, shard: Shard, on_progress: Callable[[int], None] = lambda images: None) -> ShardResult:
        """Score every image of a shard.

        Args:
            shard: what to score.
            on_progress: called after each part with the number of images finished.

        Returns: One row per face and one row per failed image, in the order of the shard's references. Rows depend on
        the images, the model and the options alone.
        """
        if any(ref.location is not None for ref in shard.refs):
            storage.withhold_names()
        found: list[tuple[Subject, Scored | ImageFault]] = []
        seconds = StageSeconds()
        under_way: deque[_Part] = deque()
        size = self._part_images(len(shard.refs))
        waiting = self._parts(shard.refs, size)
        ahead = max(1, READ_AHEAD * self._readers // size)
        try:
            under_way.extend(itertools.islice(waiting, ahead))
            while under_way:
                outcomes = under_way[0].outcomes.result()
                under_way.popleft()
                under_way.extend(itertools.islice(waiting, 1))
                found += outcomes.found
                seconds += outcomes.seconds
                on_progress(outcomes.references)
        finally:
            for part in under_way:  # after an error, nobody waits for the rest
                part.cancel()
        return self._result(found, seconds)

    def _part_images(self, images: int) -> int:
        """Images per part: several blocks, where every thread will get several parts."""
        at_hand = min(images, READ_AHEAD * self._readers)
        blocks = at_hand // (2 * self._threads * self.model.block_images)
        return self.model.block_images * max(1, min(blocks, BLOCKS_A_PART))

    def _parts(self, refs: Sequence[ImageRef], size: int) -> Iterator[_Part]:
        """Start the parts of a shard, one when asked for the next."""
        for part in _cut(refs, size):
            if part[0].segment is not None:
                yield _Part(self._pool.submit(self._score_segment, part[0]), [])
                continue
            local = storage.is_local(part[0].place)
            reads = [] if local else [self._fetch_pool.submit(self._fetch, ref) for ref in part]
            fetch = self._fetch if local else _Arrivals(reads)
            yield _Part(self._pool.submit(self._score_part, part, fetch), reads)

    def _fetch(self, ref: ImageRef) -> bytes:
        if ref.problem is not None:
            code, message = ref.problem
            raise ImageFault(FailureCode(code), message, attempts=0)
        return self._fetcher.fetch(ref)

    def _score_part(self, refs: Sequence[ImageRef], fetch: Callable[[ImageRef], bytes]) -> Outcomes:
        clock = StageClock()
        seen = [(Subject(ref), self._see(ref, fetch, clock)) for ref in refs]
        found = self._score_seen(seen, clock)
        return Outcomes(found, clock.seconds, len(refs))

    def _score_segment(self, ref: ImageRef) -> Outcomes:
        clock = StageClock()
        return Outcomes(self._segments.score(ref, clock), clock.seconds, 1)

    def _score_seen(
        self, seen: Sequence[tuple[Subject, Seen | ImageFault]], clock: StageClock
    ) -> list[tuple[Subject, Scored | ImageFault]]:
        faces = [face.pixels for _, image in seen if isinstance(image, Seen) for face in image.view.faces]
        clock.start()
        probabilities = iter(self._infer(faces))
        found = [(of, image if isinstance(image, ImageFault) else _join(image, probabilities)) for of, image in seen]
        clock.stop("infer")
        return found

    def _look(self, picture: Pixels, clock: StageClock) -> View:
        return self._guarded(lambda: self._viewer.of_picture(picture, clock))

    def _see(self, ref: ImageRef, fetch: Callable[[ImageRef], bytes], clock: StageClock) -> Seen | ImageFault:
        """Fetch and decode one image, and find its faces."""
        try:
            clock.start()
            data = fetch(ref)
            clock.stop("fetch")
            digest = hashlib.sha256(data).hexdigest()
            return Seen(digest, len(data), self._view(data, clock))
        except ImageFault as fault:
            return fault

    def _view(self, data: bytes, clock: StageClock) -> View:
        return self._guarded(lambda: self._viewer(data, clock))

    def _guarded(self, look: Callable[[], View]) -> View:
        try:
            return look()
        except (ImageFault, MaskdetError):
            raise
        except MemoryError:
            raise ImageFault(FailureCode.OUT_OF_MEMORY, "not enough memory to look at the image") from None
        except Exception as error:  # whatever an image does to the code that processes it costs only its own row
            fault = ImageFault(FailureCode.CORRUPT_IMAGE, f"looking at the image raised {type(error).__name__}")
            raise fault from error

    def _infer(self, faces: Sequence[Images]) -> list[Probabilities | ImageFault]:
        """Probabilities of a part's faces, with faults where there are none."""
        size, found = self.model.block_images, []
        for start in range(0, len(faces), size):
            pixels = np.stack(faces[start : start + size])
            try:
                found += _checked(self.model.predict(pixels))
            except Exception:  # a single image may be what the runtime chokes on
                found += [self._infer_one(pixels[i : i + 1]) for i in range(len(pixels))]
        return found

    def _infer_one(self, pixels: Images) -> Probabilities | ImageFault:
        try:
            return _checked(self.model.predict(pixels))[0]
        except Exception as error:
            return ImageFault(FailureCode.INFERENCE_ERROR, f"the model raised {type(error).__name__}")

    def _result(self, found: list[tuple[Subject, Scored | ImageFault]], seconds: StageSeconds) -> ShardResult:
        scored = [(of, outcome) for of, outcome in found if isinstance(outcome, Scored)]
        failed = [(of, outcome) for of, outcome in found if isinstance(outcome, ImageFault)]
        return ShardResult(
            predictions=self._predictions(scored),
            failures=self._failures(failed),
            no_face=self._no_face([(of, outcome.image) for of, outcome in scored if not outcome.probabilities]),
            size_bytes=sum(outcome.image.size_bytes for _, outcome in scored),
            seconds=seconds,
            segments=count_segments(found),
        )

    def _predictions(self, scored: list[tuple[Subject, Scored]]) -> pa.Table:
        names = self.options.rule.all_names
        images = [(of, outcome.image) for of, outcome in scored for _ in outcome.probabilities]
        faces = [face for _, outcome in scored for face in outcome.image.view.faces]
        rows = [row for _, outcome in scored for row in outcome.probabilities]
        class_names = self.model.manifest.class_names
        by_class = class_columns(np.array(rows, np.float32).reshape(-1, len(class_names)), class_names)
        incorrect = by_class.get(INCORRECT)
        columns = {
            **self._identity([of for of, _ in images], names),
            **_content([image for _, image in images]),
            "face_index": [index for _, outcome in scored for index in range(len(outcome.probabilities))],
            **{f"face_{name}_px": [face.box and getattr(face.box, name) for face in faces] for name in FaceBox._fields},
            "face_score": [face.score for face in faces],
            "probability_mask": by_class[MASK],
            "probability_incorrect": [None] * len(faces) if incorrect is None else incorrect,
            "probability_no_mask": by_class[NO_MASK],
            "label": label_names(label_codes(by_class[MASK], incorrect, self.options.decision)),
            "model_id": [self.model.manifest.model_id] * len(faces),
            "frame_time_us": [of.time_us for of, _ in images],
        }
        return pa.table(columns, schema=predictions_schema(names))

    def _no_face(self, images: list[tuple[Subject, Seen]]) -> pa.Table:
        names = self.options.rule.all_names
        columns = {
            **self._identity([of for of, _ in images], names),
            **_content([image for _, image in images]),
            "frame_time_us": [of.time_us for of, _ in images],
        }
        return pa.table(columns, schema=no_face_schema(names))

    def _failures(self, failed: list[tuple[Subject, ImageFault]]) -> pa.Table:
        columns = {
            **self._identity([of for of, _ in failed], self.options.rule.all_names),
            "stage": [fault.code.stage.value for _, fault in failed],
            "code": [fault.code.value for _, fault in failed],
            "message": [told(of.ref, fault.code, fault.message) for of, fault in failed],
            "attempts": [fault.attempts for _, fault in failed],
            "frame_time_us": [of.time_us for of, _ in failed],
            "frame_end_us": [of.end_us for of, _ in failed],
            "frames": [of.frames for of, _ in failed],
        }
        return pa.table(columns, schema=failures_schema(self.options.rule.all_names))

    def _identity(self, subjects: list[Subject], key_names: Sequence[str]) -> dict[str, list[object]]:
        rule = self.options.rule
        return {
            "image_uri": [of.ref.uri for of in subjects],
            "captured_at": [of.captured_at_ms for of in subjects],
            **{name: [key_value(name, rule.value(of.ref, name)) for of in subjects] for name in key_names},
        }


def _cut(refs: Sequence[ImageRef], size: int) -> Iterator[tuple[ImageRef, ...]]:
    """Parts of some number of images, and each segment of a video separately, in order."""
    part: list[ImageRef] = []
    for ref in refs:
        if part and (len(part) == size or ref.segment is not None):
            yield tuple(part)
            part = []
        if ref.segment is not None:
            yield (ref,)
        else:
            part.append(ref)
    if part:
        yield tuple(part)


def _join(image: Seen, probabilities: Iterator[Probabilities | ImageFault]) -> Scored | ImageFault:
    """An image and the next probabilities, one for each of its faces; all are consumed even if one is a fault."""
    found = list(itertools.islice(probabilities, len(image.view.faces)))
    faults = [value for value in found if isinstance(value, ImageFault)]
    if faults:
        return faults[0]
    return Scored(_without_pixels(image), [value for value in found if not isinstance(value, ImageFault)])


def _without_pixels(image: Seen) -> Seen:
    """What rows need from an image: a shard's crops would take more memory than its images."""
    faces = tuple(face._replace(pixels=_NO_PIXELS) for face in image.view.faces)
    return image._replace(view=image.view._replace(faces=faces))


def _content(images: Sequence[Seen]) -> dict[str, list[object]]:
    return {
        "content_sha256": [image.content_sha256 for image in images],
        "width_px": [image.view.width_px for image in images],
        "height_px": [image.view.height_px for image in images],
        "damaged": [image.view.damaged for image in images],
    }


def _checked(probabilities: Probabilities) -> list[Probabilities | ImageFault]:
    fault = ImageFault(FailureCode.NOT_FINITE, "the model gave no finite probability")
    return [row if np.isfinite(row).all() else fault for row in probabilities]
