"""Fit the compact network of three classes to photographs, and write it as a Keras file.

    maskdet prepare --config configs/prepare.yaml --output build/manifest
    python -m tools.augment --config tools/configs/augment.yaml --output build/composites
    python -m tools.fit_compact --start models/compact_two/model.keras --output models/compact_three.keras

Faces of k12, wild and scenes are found and cut out, pictures are made from them (see :mod:`tools.incorrect`), and a
network of two classes learns the third:

1. It is fitted to the collections, the made pictures and part ``fit`` of scenes, without groups that hold a real mask
   worn incorrectly.
2. A short last stage adds the other faces of scenes. It runs twice from the same weights, and the mean of the resulting
   weights is taken.
3. Four more networks repeat the last stage, each without a quarter of the groups with a mask worn incorrectly and of
   the other groups of ``tune`` and ``test``. What each predicts for the groups that it left out goes beside the Keras
   file, as ``.held_out.npz``, for thresholds and cross-validation.

The same photographs and seed always give the same pictures and batches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.cli import console
from maskdet.labels import MASK, NO_MASK, THREE_CLASSES
from maskdet.preparation.manifest import read_split
from tools.detector.centerface import packaged_weights
from tools.incorrect import pipeline
from tools.incorrect.finding import CenterFace
from tools.incorrect.fitting import LAST_LAYERS_FROM, Part, with_three_classes
from tools.incorrect.gathering import Annotated, incorrect_groups, items_of_scenes, read_collections, read_scenes
from tools.incorrect.sources import Item

_PARTS = Path(__file__).parent / "detector" / "scenes_split.csv"
_SHARED = Path(__file__).parent / "incorrect" / "shared.txt"
_BASE_STEPS, _BASE_RATE, _BASE_AVERAGED = (1800, 1400), 7e-4, 0.998
_WORN = 2  # index of the pictures of masks among the sources
_REAL_STEPS, _REAL_RATE, _REAL_AVERAGED = 1000, 6e-4, 0.99
_REAL_TURNS = 2
_FOLDS = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("fit_compact", lambda: _run(_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    import keras

    root, seed = Path(arguments.data).resolve(), arguments.seed
    detect = CenterFace(packaged_weights())
    known, faces = read_collections(root, arguments.manifest, detect), read_scenes(root, Path(arguments.parts), detect)
    without = pipeline.without_shared(known, set(_SHARED.read_text(encoding="utf-8").split()))
    print(f"{len(known)} files, {len(faces)} annotated faces, {len(without)} files left out", flush=True)
    collections, street = pipeline.base_items(root, known, faces, without)
    worn, hidden = pipeline.made_pictures(root, known, faces, without, pipeline.Counts(), seed)
    composites = _composites(arguments.composites)
    base = [
        pipeline.parts_of(items, pipeline.views_of(items, pipeline.COPIES[source], seed + number))
        for number, (source, items) in enumerate(
            zip(pipeline.LAST_SHARES, (collections, street, worn, hidden, composites), strict=True)
        )
    ]
    network = with_three_classes(keras.saving.load_model(arguments.start, compile=False))
    for stage, steps in enumerate(_BASE_STEPS):
        pipeline.fit_later_layers(
            network, base, steps=steps, rate=_BASE_RATE, averaged=_BASE_AVERAGED, seed=seed + stage
        )
        base[_WORN] = pipeline.without_bare_looks(network, base[_WORN])
    base = pipeline.for_last_stage(network, base)
    held_out = _cross_validate(network, base, root, faces, seed)
    np.savez_compressed(Path(arguments.output).with_suffix(".held_out.npz"), allow_pickle=False, **held_out)
    incorrect = set(incorrect_groups(faces))
    seen = [face for face in faces if face.group in incorrect or face.part != "fit"]  # the base has the others
    _last_stage(network, base, _real_parts(root, seen, incorrect, seed), seed)
    network.save(arguments.output)
    return 0


def _last_stage(network: Any, base: list[Part], real: list[Part], seed: int) -> None:
    """Fit the last layers several times from the same weights with other random draws, and set the mean weights."""
    parts = [*base, *(pipeline.with_hard_ones_more(network, part) for part in real)]
    began, ended = network.get_weights(), []
    for turn in range(_REAL_TURNS):
        network.set_weights(began)
        pipeline.fit_later_layers(
            network,
            parts,
            steps=_REAL_STEPS,
            rate=_REAL_RATE,
            averaged=_REAL_AVERAGED,
            seed=seed + 9 + 100 * turn,
            layer=LAST_LAYERS_FROM,
        )
        ended.append(network.get_weights())
    network.set_weights([np.mean(weights, axis=0) for weights in zip(*ended, strict=True)])


def _cross_validate(
    network: Any, base: list[Part], root: Path, faces: list[Annotated], seed: int
) -> dict[str, NDArray[Any]]:
    """Predictions for every group's faces, each by the network that was fitted without that group."""
    import keras

    incorrect = set(incorrect_groups(faces))
    tested = [face for face in faces if face.group in incorrect or face.part != "fit"]
    others = {face.group for face in tested} - incorrect
    fold_of = pipeline.folds(sorted(incorrect), _FOLDS, seed) | pipeline.folds(sorted(others), _FOLDS, seed + 1)
    given = np.zeros((len(tested), len(THREE_CLASSES)), np.float32)
    for fold in range(_FOLDS):
        learner = keras.models.clone_model(network)
        learner.set_weights(network.get_weights())
        known = [face for face in tested if fold_of[face.group] != fold]
        _last_stage(learner, base, _real_parts(root, known, incorrect, seed), seed)
        places = [place for place, face in enumerate(tested) if fold_of[face.group] == fold]
        given[places] = learner.predict(pipeline.crops_of(root, [tested[place] for place in places]), verbose=0)
    return {
        "probabilities": given,
        "labels": np.array([face.label for face in tested]),
        "parts": np.array([face.part for face in tested]),
        "folds": np.array([fold_of[face.group] for face in tested]),
        "sides_px": np.array([np.max(face.box[2:] - face.box[:2]) for face in tested], np.float32),
    }


def _composites(manifest: str) -> list[Item]:
    return [
        Item(Path(uri).read_bytes(), None, label, "composite", group, uri)
        for uri, label, group in read_split(manifest, "train")
        if label in (MASK, NO_MASK)
    ]


def _real_parts(root: Path, faces: list[Annotated], incorrect: set[str], seed: int) -> list[Part]:
    """Faces of scenes: those of groups with a mask worn incorrectly, and others."""
    near = list(items_of_scenes(root, [face for face in faces if face.group in incorrect]))
    far = list(items_of_scenes(root, [face for face in faces if face.group not in incorrect]))
    numbers = iter(range(seed + 10, seed + 99))
    return pipeline.real_parts(near, far, lambda chosen, copies: pipeline.views_of(chosen, copies, next(numbers)))


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser("python -m tools.fit_compact", __doc__)
    parser.add_argument("--data", default="../shared/data", help="folder of k12, wild and scenes")
    parser.add_argument("--manifest", default="build/manifest/images.parquet", help="made by maskdet prepare")
    parser.add_argument("--composites", default="build/composites/images.parquet", help="made by tools.augment")
    parser.add_argument("--parts", default=str(_PARTS), help="CSV: part and group of each photograph of scenes")
    parser.add_argument("--start", required=True, help="model.keras of a compact network of two classes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", required=True, help="a .keras file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
