"""Refine CenterFace's published weights for masked, small and context-free faces.

    python -m tools.detector.refine --crops ../shared/data/k12/Train --photographs ../shared/data/wild \
        --output models/detector.npz

20 minutes on two cores. The published weights find .51 of faces of 16 to 32 pixels and .73 of 32 to 64 pixels in
scenes at score .3, most misses being masked ones. Loss: penalty-reduced focal loss of the score and L1 of size and
offset at the centres (CenterNet, see :mod:`tools.detector.lessons`); landmarks, which lessons have none of, are
held to what the published weights say where these see the face. Adam, cosine decay.
"""

from __future__ import annotations

import argparse
import functools
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskdet.faces.boxes import Floats, suppress
from maskdet.faces.decoding import Heads, decode
from maskdet.images.preprocessing import ImageLimits, open_upright
from tools.detector.centerface import Layer, forward, packaged_weights, read_weights
from tools.detector.lessons import LessonSources, make_lesson

BATCH = 8
_PEAK_RATE = 3e-4
_WARM_UP_STEPS = 60
_MAX_GRADIENT_NORM = 5.0
_SHAPE_WEIGHT, _LANDMARK_WEIGHT = 0.7, 0.3
_SEEN_LOGIT = -1.1  # a score of .25
_LABEL_SIDES_PX = (224, 320)
_LABEL_SCORE, _FACE_SCORE = 0.5, 0.35


def face_finder(layers: Sequence[Layer]) -> Callable[[Path], Floats | None]:
    """Finds a photograph's faces with float32 weights at two sizes; the surer size wins.

    Returns:
        A function from a file to boxes float32 ``(faces, 4)`` in its pixels, the surest first, or ``None`` where no
        face is sure enough to teach.
    """
    import tensorflow as tf

    run = tf.function(lambda canvas: forward(canvas, layers), reduce_retracing=True)

    def find(path: Path) -> Floats | None:
        picture, _ = open_upright(path.read_bytes(), ImageLimits())
        best: tuple[float, Floats] | None = None
        for longer in _LABEL_SIDES_PX:
            scale = longer / max(picture.size)
            width, height = (-(-max(1, round(side * scale)) // 32) * 32 for side in picture.size)
            canvas = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)
            maps = {name: head.numpy()[0, ::-1, ::-1] for name, head in run(canvas[np.newaxis, ::-1, ::-1]).items()}
            score = 1 / (1 + np.exp(-maps["score"][..., 0]))
            faces = decode(Heads(score, maps["size"], maps["offset"], maps["landmarks"]), _FACE_SCORE)
            faces = faces.take(suppress(faces.boxes, faces.scores, 0.3))
            if len(faces.scores) and (best is None or faces.scores[0] > best[0]):
                to_pixels = np.array([picture.width / width, picture.height / height] * 2, np.float32)
                best = (float(faces.scores[0]), faces.boxes * to_pixels)
        return best[1] if best is not None and best[0] >= _LABEL_SCORE else None

    return find


def refine(
    published: Sequence[Layer],
    sources: LessonSources,
    steps: int,
    seed: int,
    report: Callable[[str], None] = print,
) -> list[Layer]:
    """Train.

    Args:
        published: weights to start from and to hold landmarks to.
        sources: what lessons are made of.
        steps: batches of :data:`BATCH` lessons.
        seed: names the lessons.
        report: told of the losses now and then.

    Returns:
        The refined weights, as arrays.
    """
    import tensorflow as tf

    layers = [Layer(tf.Variable(layer.kernel), tf.Variable(layer.bias)) for layer in published]
    update = _Adam([part for layer in layers for part in layer])

    @tf.function  # type: ignore[untyped-decorator]
    def step(batch: Any, rate: Any, number: Any) -> Any:
        with tf.GradientTape() as tape:
            losses = _losses(batch, layers, published)
            total = losses[0] + losses[1] + _SHAPE_WEIGHT * losses[2] + _LANDMARK_WEIGHT * losses[3]
        update(tape.gradient(total, update.variables), rate, number)
        return tf.stack(losses)

    lessons = _feed(sources, seed, steps)
    started, recent = time.perf_counter(), []
    for number in range(1, steps + 1):
        decay = 0.5 + 0.5 * np.cos(np.pi * number / steps)
        rate = _PEAK_RATE * min(1.0, number / _WARM_UP_STEPS) * decay
        # Tensors, since the graph would be traced anew for every Python number.
        recent.append(step(lessons.get(), tf.constant(rate, tf.float32), tf.constant(number, tf.float32)).numpy())
        if number % 50 == 0:
            found, silent, shape, landmarks = np.mean(recent, axis=0)
            pace = (time.perf_counter() - started) / number
            report(f"{number}: {found:.3f} {silent:.3f} {shape:.3f} {landmarks:.3f}, {pace:.2f} s a step")
            recent = []
    return [Layer(layer.kernel.numpy(), layer.bias.numpy()) for layer in layers]


class _Adam:
    """Adam (Kingma and Ba, 2015) with its usual constants, for plain variables, which Keras' own does not take."""

    def __init__(self, variables: list[Any]) -> None:
        import tensorflow as tf

        self.variables = variables
        self._means = [tf.Variable(tf.zeros_like(variable)) for variable in variables]
        self._squares = [tf.Variable(tf.zeros_like(variable)) for variable in variables]

    def __call__(self, gradients: list[Any], rate: Any, number: Any) -> None:
        import tensorflow as tf

        clipped, _ = tf.clip_by_global_norm(gradients, _MAX_GRADIENT_NORM)
        for variable, gradient, mean, square in zip(self.variables, clipped, self._means, self._squares, strict=True):
            mean.assign(0.9 * mean + 0.1 * gradient)
            square.assign(0.999 * square + 0.001 * gradient**2)
            size = tf.sqrt(square / (1 - 0.999**number)) + 1e-8
            variable.assign_sub(rate * mean / (1 - 0.9**number) / size)


def _losses(batch: Any, layers: Sequence[Layer], published: Sequence[Layer]) -> list[Any]:
    """Missed faces, false faces, wrong shape, moved landmarks; each a face."""
    import tensorflow as tf

    pixels, wanted, centres, shape, counts = batch
    heads, before = forward(pixels, layers), forward(pixels, published)
    logit = heads["score"][..., 0]
    score = tf.sigmoid(logit)
    faces = tf.maximum(1.0, tf.reduce_sum(centres))
    missed = -tf.reduce_sum(centres * (1 - score) ** 2 * tf.math.log_sigmoid(logit)) / faces
    elsewhere = counts * (1 - centres) * (1 - wanted) ** 4
    false = -tf.reduce_sum(elsewhere * score**2 * tf.math.log_sigmoid(-logit)) / faces
    off = tf.abs(tf.concat([heads["size"], heads["offset"]], axis=-1) - shape)
    seen = centres * tf.cast(before["score"][..., 0] > _SEEN_LOGIT, tf.float32)
    moved = tf.reduce_sum(seen[..., tf.newaxis] * tf.abs(heads["landmarks"] - before["landmarks"]))
    return [missed, false, tf.reduce_sum(centres[..., tf.newaxis] * off) / faces,
            moved / tf.maximum(1.0, tf.reduce_sum(seen))]  # fmt: skip


def _feed(sources: LessonSources, seed: int, steps: int) -> queue.Queue[Any]:
    """Batches, turned by 180 degrees as the graph wants them, made by a thread while the network trains."""
    batches: queue.Queue[Any] = queue.Queue(6)

    def fill() -> None:
        for number in range(steps):
            lessons = [make_lesson(seed, number * BATCH + index, sources) for index in range(BATCH)]
            batches.put([np.stack(part)[:, ::-1, ::-1].astype(np.float32) for part in zip(*lessons, strict=True)])

    threading.Thread(target=fill, daemon=True).start()
    return batches


def main(argv: Sequence[str] | None = None) -> int:
    """Refine the published weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=Path, required=True, help="folder with WithMask and WithoutMask")
    parser.add_argument("--photographs", type=Path, required=True, help="folder with with_mask and without_mask")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--output", type=Path, required=True, help="an .npz file")
    arguments = parser.parse_args(argv)
    published = read_weights(packaged_weights())
    sources = LessonSources.find(arguments.crops, arguments.photographs, face_finder(published))
    print(f"{len(sources.crops)} crops, {len(sources.labelled)} photographs with a face of {len(sources.photographs)}")
    layers = refine(published, sources, arguments.steps, arguments.seed, functools.partial(print, flush=True))
    arrays = {f"{name}_{index}": part for index, layer in enumerate(layers)
              for name, part in zip(("kernel", "bias"), layer, strict=True)}  # fmt: skip
    np.savez(arguments.output, allow_pickle=False, **arrays)
    return 0


if __name__ == "__main__":
    sys.exit(main())
