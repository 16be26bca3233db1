"""Calibrate the fitted network of three classes, set or choose its thresholds, and write its bundle.

    python -m tools.export_compact --fitted models/compact_three.keras --output models/compact_three
                                   [--mask-from N] [--incorrect-from N] [--incorrect-odds N]

The thresholds that ship were set, with ``--mask-from 0.575 --incorrect-from 0.36 --incorrect-odds 5``: the rule of the
model card asks, of the odds, that few bare faces be called incorrect by annotated boxes and as the detector finds them,
and looked at what labels were corrected since. This tool knows annotated boxes alone. A threshold that is not given is
chosen by what they tell, and may be another.

Temperature and thresholds that are chosen come from predictions of networks that were not fitted to the face's group:
those in ``.held_out.npz`` (see :mod:`tools.fit_compact`) for faces of 32 pixels and more, and those for the validation
groups of k12 and wild.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from maskdet.cli import console
from maskdet.evaluation.calibration import fit_class_temperature
from maskdet.labels import CODES, INCORRECT, MASK, NO_MASK, THREE_CLASSES, Decision, Probability, Times, label_codes
from maskdet.model.architectures import COMPACT
from maskdet.model.export import export_bundle
from maskdet.model.manifest import Calibration, InputSpec, Manifest, TrainingData
from maskdet.preparation.manifest import read_split
from tools.detector.centerface import packaged_weights
from tools.incorrect import pipeline
from tools.incorrect.finding import CenterFace
from tools.incorrect.gathering import read_collections, read_scenes
from tools.incorrect.sources import relabelled
from tools.incorrect.views import SIDE_PX

MAX_MASKED_AS_INCORRECT = 0.025
"""Share of masks worn correctly: below the 3 % that are allowed, with a margin for other photographs."""
MAX_BARE_AS_INCORRECT = 0.01
"""Share of bare faces."""

_THRESHOLDS = {"mask_from": Probability, "incorrect_from": Probability, "incorrect_odds": Times}
_NEARLY_BEST = 0.001
_LEAST_SIDE_PX = 32
_REPRESENTATIVE = 1200
_DESCRIPTION = (
    "Small int8 network: a mask worn correctly, incorrectly, or none, on one face, from face crops to head and "
    "shoulders, 24 pixels and up. Made for statistics over many images, not for decisions about a person."
)


class Faces(NamedTuple):
    """Predictions for some faces, and their true classes."""

    probabilities: NDArray[Any]
    """``(faces, 3)`` in the order of ``THREE_CLASSES``."""
    labels: NDArray[Any]
    """Names of their true classes, ``(faces,)``."""


def choose(
    street: Faces,
    collections: Faces,
    *,
    mask_from: float | None = None,
    incorrect_from: float | None = None,
    incorrect_odds: float | None = None,
) -> Decision:
    """The thresholds of the rule of :mod:`maskdet.labels`: those that are given, and the others chosen.

    - Whether there is a mask: take the thresholds whose balanced error on ``collections`` is within .001 of the lowest;
      of these, those whose balanced error on ``street`` is within .001 of the lowest; of these, the one nearest 0.5.
    - Whether it is worn incorrectly: the lowest share of ``incorrect`` at which at most
      :data:`MAX_MASKED_AS_INCORRECT` of the street faces with a correct mask are called incorrect.
    - By which factor the odds of a mask have to exceed those of its threshold for ``incorrect``: the smallest at which
      at most :data:`MAX_BARE_AS_INCORRECT` of the bare street faces are called incorrect.

    Args:
        street: faces of all three classes.
        collections: faces with a mask and without.
        mask_from: see :class:`maskdet.labels.Decision`; the thresholds that are chosen follow from those given.
        incorrect_from: likewise.
        incorrect_odds: likewise.
    """
    mask_from = _mask_from(street, collections) if mask_from is None else mask_from
    incorrect_from = _incorrect_from(street, mask_from) if incorrect_from is None else incorrect_from
    decision = Decision(no_mask_below=mask_from, mask_from=mask_from, incorrect_from=incorrect_from)
    odds = _incorrect_odds(street, decision) if incorrect_odds is None else incorrect_odds
    return decision.model_copy(update={"incorrect_odds": odds})


def _mask_from(street: Faces, collections: Faces) -> float:
    candidates = np.linspace(0.02, 0.98, 193)
    near = candidates
    for faces in (collections, street):
        error = _balanced_error(faces, near)
        near = near[error <= error.min() + _NEARLY_BEST]
    return round(float(near[np.argmin(np.abs(near - 0.5))]), 3)


def _incorrect_from(street: Faces, mask_from: float) -> float:
    worn = street.probabilities[:, 0] + street.probabilities[:, 1]
    share = street.probabilities[:, 1] / np.maximum(worn, 1e-9)
    masked = street.labels == MASK
    shares = np.linspace(0.05, 0.95, 181)
    alarms = np.array([np.mean((share >= at)[masked] & (worn >= mask_from)[masked]) for at in shares])
    allowed = shares[alarms <= MAX_MASKED_AS_INCORRECT]
    return round(float(allowed[0]), 3) if len(allowed) else 1.0


def _incorrect_odds(street: Faces, decision: Decision) -> float:
    bare = street.probabilities[street.labels == NO_MASK]
    for odds in np.geomspace(1, 100, 93):  # steps of 5 %
        strict = decision.model_copy(update={"incorrect_odds": round(float(odds), 2)})
        called = label_codes(bare[:, 0], bare[:, 1], strict) == CODES[INCORRECT]
        if called.mean() <= MAX_BARE_AS_INCORRECT:
            break
    return float(strict.incorrect_odds or 1.0)


def _balanced_error(faces: Faces, candidates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Balanced error of whether there is a mask, by threshold, ``(candidates,)``."""
    worn, bare = faces.probabilities[:, 0] + faces.probabilities[:, 1], faces.labels == NO_MASK
    return np.array([(np.mean(worn[~bare] < at) + np.mean(worn[bare] >= at)) / 2 for at in candidates])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("export_compact", lambda: _run(_parser().parse_args(argv)))


def _run(arguments: argparse.Namespace) -> int:
    import keras

    network = keras.saving.load_model(arguments.fitted, compile=False)
    street, collections = _held_out(network, arguments)
    every = Faces(*(np.concatenate(parts) for parts in zip(street, collections, strict=True)))
    classes = np.array([THREE_CLASSES.index(label) for label in every.labels], np.intp)
    temperature = round(float(fit_class_temperature(every.probabilities.astype(np.float64), classes)), 4)
    faces = _tempered(street, temperature), _tempered(collections, temperature)
    given = {name: getattr(arguments, name) for name in _THRESHOLDS}
    decision = choose(*faces, **given)
    print("chosen by annotated boxes alone: ", choose(*faces))
    layer = network.get_layer("logit")
    layer.set_weights([weights / temperature for weights in layer.get_weights()])
    root, digests, representative = Path(arguments.data).resolve(), *_seen(arguments)
    draft = Manifest(
        name=COMPACT,
        architecture=COMPACT,
        description=_DESCRIPTION,
        input=InputSpec(height=SIDE_PX, width=SIDE_PX),
        class_names=THREE_CLASSES,
        decision=decision,
        calibration=Calibration(
            method="temperature", temperature=temperature, fitted_on="faces of groups that were not fitted to"
        ),
        training_data=TrainingData(
            description=f"photographs of k12, wild and scenes below {root.name}, and pictures made of them",
            images=len(digests),
            fingerprint=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        ),
    )
    print("written: ", decision)
    export_bundle(network, Path(arguments.output), draft, representative=representative, training_images=digests)
    return 0


def _tempered(faces: Faces, temperature: float) -> Faces:
    powers = np.clip(faces.probabilities.astype(np.float64), 1e-9, 1) ** (1 / temperature)
    return faces._replace(probabilities=powers / powers.sum(axis=1, keepdims=True))


def _held_out(network: Any, arguments: argparse.Namespace) -> tuple[Faces, Faces]:
    """Faces of groups that were not fitted to: of scenes, as the folds' networks see them, and of k12 and wild."""
    held = np.load(Path(arguments.fitted).with_suffix(".held_out.npz"), allow_pickle=False)
    fair = held["sides_px"] >= _LEAST_SIDE_PX
    corrected, root = relabelled(), Path(arguments.data).resolve()
    rows = [
        (uri, label)
        for uri, label, _ in read_split(arguments.manifest, "validation", drop_suspicious=True)
        if Path(uri).relative_to(root).as_posix() not in corrected
    ]
    validation = network.predict(np.stack([_whole(uri) for uri, _ in rows]), verbose=0)
    street = Faces(held["probabilities"][fair], held["labels"][fair])
    return street, Faces(validation, np.array([label for _, label in rows]))


def _whole(uri: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(uri).convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def _seen(arguments: argparse.Namespace) -> tuple[list[str], NDArray[np.uint8]]:
    """SHA-256 of every photograph that the network was fitted to, and views of some of their faces."""
    root, detect = Path(arguments.data).resolve(), CenterFace(packaged_weights())
    known, faces = read_collections(root, arguments.manifest, detect), read_scenes(root, Path(arguments.parts), detect)
    collections, street = pipeline.base_items(root, known, faces, set())
    paths = {item.path for item in collections} | {face.path for face in faces}
    digests = sorted(hashlib.sha256((root / path).read_bytes()).hexdigest() for path in paths)
    items = [*collections, *street]
    drawn = np.random.default_rng(3).permutation(len(items))[:_REPRESENTATIVE]
    return digests, pipeline.views_of([items[place] for place in drawn], 1, 3)[:, 0]


def _number_of(kind: Any) -> Callable[[str], float]:
    """Reads a flag's number, within the bounds of a threshold's type."""

    def number(text: str) -> float:
        try:
            return float(TypeAdapter(kind).validate_python(text))
        except ValidationError as error:
            raise argparse.ArgumentTypeError(f"{error.errors()[0]['msg']}, received {text!r}") from None

    return number


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser("python -m tools.export_compact", __doc__)
    parser.add_argument("--data", default="../shared/data", help="folder of k12, wild and scenes")
    parser.add_argument("--manifest", default="build/manifest/images.parquet", help="made by maskdet prepare")
    parser.add_argument(
        "--parts",
        default=str(Path(__file__).parent / "detector" / "scenes_split.csv"),
        help="CSV: part and group of each photograph of scenes",
    )
    parser.add_argument("--fitted", required=True, help="the .keras file that tools.fit_compact wrote")
    parser.add_argument("--output", required=True, help="the bundle's folder")
    for name, kind in _THRESHOLDS.items():
        text = f"the bundle's {name} (default: chosen by annotated boxes)"
        parser.add_argument(f"--{name.replace('_', '-')}", type=_number_of(kind), metavar="N", help=text)
    return parser


if __name__ == "__main__":
    sys.exit(main())
