"""Measure how much faster training is than the loop that such recipes were originally written for.

    .venv/bin/python -m benchmarks.training
    .venv/bin/python -m benchmarks.training --images 1000 --rounds 3

The peer is Keras' legacy `ImageDataGenerator(rescale=1/255).flow_from_directory(…)` with `model.fit` in float32, as in
the recipe's original; it decodes every image in every epoch. Ours is the recipe of configs/train/reference_cnn.yaml
with the project's own data loading, twice: with 16-bit arithmetic where the machine has units for it, and in float32.
Network, images, batch size and steps are the same. We decode images once, before the first epoch; that time is printed,
and counted in a second ratio over all of the recipe's epochs. Contestants take turns in one process. Without
photographs faces are drawn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskdet.config import load_yaml
from maskdet.training.recipe import DataSource, Recipe

RECIPE = Path(__file__).parents[1] / "configs" / "train" / "reference_cnn.yaml"
WARM_UP_STEPS = 3


def main() -> None:
    arguments = _parser().parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _link_images(arguments.input, arguments.images, folder)
        source = DataSource(mask="mask", no_mask="no_mask")
        recipe = load_yaml(Recipe, RECIPE).model_copy(update={"data": (source,), "validation_data": ()})
        recipe = recipe.model_copy(update={"steps_per_epoch": max(1, arguments.images // recipe.batch_size)})
        started = time.perf_counter()
        ours = _ours(recipe, folder)
        decode_s = time.perf_counter() - started
        contestants = {"legacy generator": _legacy(recipe, folder)} | ours
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(arguments.rounds):
            for name, run_epoch in contestants.items():
                started = time.perf_counter()
                run_epoch()
                seconds[name].append(time.perf_counter() - started)
    _report(recipe, seconds, decode_s)


def _ours(recipe: Recipe, folder: Path) -> dict[str, Callable[[], None]]:
    """Functions that run one epoch of ours, by the name of the arithmetic; decodes the images."""
    from maskdet.training import devices
    from maskdet.training.batches import examples_of, training_batches
    from maskdet.training.sets import load_training

    devices.prepare(recipe.seed, deterministic=False)
    examples = examples_of(load_training(recipe, str(folder)))
    epochs = {}
    for mixed in (True, False):
        with devices.precision(mixed=mixed) as policy:
            model = _compiled(recipe)
        if f"ours, {policy}" in epochs:
            continue  # the machine has no units for 16 bits

        def run_epoch(model: Any = model) -> None:
            model.fit(
                training_batches(recipe.model_copy(update={"epochs": 1}), examples, 0),
                steps_per_epoch=recipe.steps_per_epoch,
                shuffle=False,
                verbose=0,
            )

        _warm_up(model, training_batches(recipe, examples, 0))
        epochs[f"ours, {policy}"] = run_epoch
    return epochs


def _legacy(recipe: Recipe, folder: Path) -> Callable[[], None]:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    model = _compiled(recipe, scaled=False)
    flow = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
        str(folder), target_size=(recipe.height, recipe.width), batch_size=recipe.batch_size, class_mode="binary"
    )
    _warm_up(model, flow)
    return lambda: model.fit(flow, steps_per_epoch=recipe.steps_per_epoch, verbose=0)


def _compiled(recipe: Recipe, *, scaled: bool = True) -> Any:
    """The compiled network; without its own rescaling if ``scaled`` is false, because the generator rescales."""
    import keras

    from maskdet.model.architectures import build_model

    model = build_model(recipe.architecture, recipe.height, recipe.width)
    if not scaled:
        model = keras.Model(model.get_layer("rescaling").output, model.output)
    model.compile(keras.optimizers.RMSprop(recipe.learning_rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def _warm_up(model: Any, batches: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about shuffling, which the data set does, and about the legacy class
        model.fit(batches, steps_per_epoch=WARM_UP_STEPS, verbose=0)


def _report(recipe: Recipe, seconds: dict[str, list[float]], decode_s: float) -> None:
    images = recipe.steps_per_epoch * recipe.batch_size
    legacy = seconds["legacy generator"]
    print(f"one epoch of {images:,} images, {len(legacy)} interleaved rounds; median (min to max)")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"  {name:<22} {middle:7.1f} s ({min(values):.1f} to {max(values):.1f}), {images / middle:,.0f} images/s")
    print(f"  ours, decoding once    {decode_s:7.1f} s (with building and warming up)")
    for name, values in list(seconds.items())[1:]:
        ratios = [theirs / mine for theirs, mine in zip(legacy, values, strict=True)]
        mine_s = recipe.epochs * statistics.median(values) + decode_s
        whole = recipe.epochs * statistics.median(legacy) / mine_s
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"legacy / {name}: {statistics.median(ratios):.2f} ({spread}); whole training of {recipe.epochs} epochs, "
            f"decoding included: {whole:.2f}"
        )


def _link_images(source: Path | None, images: int, folder: Path) -> None:
    """Link the first ``images`` images, half of each class, below ``mask/`` and ``no_mask/``."""
    from maskdet.training.data import data_folder

    root = source or Path(data_folder()) / "k12" / "Train"
    for name, original in (("mask", "WithMask"), ("no_mask", "WithoutMask")):
        (folder / name).mkdir()
        found = sorted((root / original).glob("*"))[: images // 2] if root.is_dir() else []
        if source and not found:
            sys.exit(f"--input: expected folders WithMask and WithoutMask with images, received {source}")
        for path in found:
            (folder / name / path.name).symlink_to(path.resolve())
        if not found:
            _draw(folder / name, images // 2, masked=name == "mask")


def _draw(folder: Path, count: int, *, masked: bool) -> None:
    import numpy as np

    from maskdet.demo.drawing import draw_face

    for index in range(count):
        draw_face(np.random.default_rng([index, masked]), 224, masked=masked).save(folder / f"{index}.jpg", quality=93)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, help="a folder with WithMask and WithoutMask (default: k12/Train)")
    parser.add_argument("--images", type=int, default=10_000, help="images per epoch, half of each class")
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
