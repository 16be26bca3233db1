"""All steps from photographs to a fitted network; photographs, settings and seed decide the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdet.faces.crops import CropOptions, crop_face
from maskdet.labels import INCORRECT, MASK, NO_MASK, THREE_CLASSES
from tools.incorrect.fitting import FROZEN_UP_TO, Mixture, Part, cut, fit, put_back
from tools.incorrect.gathering import (
    Annotated,
    Known,
    incorrect_groups,
    items_of_collections,
    items_of_scenes,
    scene_faces,
)
from tools.incorrect.making import Workshop
from tools.incorrect.sources import Face, Item, Photographs, relabelled
from tools.incorrect.views import SIDE_PX, make_view

COPIES = {"collections": 2, "scenes": 6, "worn": 2, "hidden": 2, "composites": 1, "incorrect": 16, "others": 3}
"""Source → number of views of each item."""

WEIGHTS = {"crop": 1.0, "wild": 1.6, "whole": 1.2, "scene": 2.0, "worn": 0.6, "hidden": 1.0, "composite": 0.5}
"""Kind of item → relative frequency at which it is drawn."""
LAST_SHARES = {"collections": 0.75, "scenes": 1.2, "worn": 0.6, "hidden": 0.6, "composites": 0.5}
"""Source → factor of its weights in the last stage."""
_INCORRECT_WEIGHT = 3.0
_REAL_INCORRECT_WEIGHT, _REAL_NEAR_WEIGHT, _REAL_FAR_WEIGHT = 40.0, 3.0, 2.0
_HARD_WEIGHT = 3.0
_SURELY_BARE, _HARDLY_INCORRECT = 0.9, 0.15

_FEATURES_BATCH = 256
_LOOKS_BARE = 0.4


class Counts(NamedTuple):
    """How many pictures of each kind are made."""

    worn: int = 9500
    worn_on_scenes: int = 2500
    hidden: int = 5500


def without_shared(known: Sequence[Known], shared: set[str]) -> set[str]:
    """Files of k12 and wild to leave out: those that show a photograph of scenes' tune or test part, and their copies.

    Args:
        known: the files.
        shared: paths of files that are known to show such a photograph.
    """
    groups = {file.group for file in known if file.path in shared}
    return {file.path for file in known if file.group in groups}


def made_pictures(
    root: Path, known: Sequence[Known], faces: list[Annotated], without: set[str], counts: Counts, seed: int
) -> tuple[list[Item], list[Item]]:
    """Pictures of masks worn in every way, and of faces with something in front of them.

    Args:
        root: the data folder.
        known: files of k12 and wild.
        faces: faces of scenes; only its fit part is used.
        without: files of k12 and wild that must not be used.
        counts: how many pictures to make.
        seed: seed of everything random.
    """
    corrected = relabelled()
    own = [
        file.face
        for file in known
        if file.face is not None
        and file.split == "train"
        and file.official_split in (None, "train")
        and file.path not in without
        and file.path not in corrected
    ]
    fit_part, photographs = scene_faces(faces, "fit"), Photographs(root)
    bare, masked = _of(own, NO_MASK), [face for face in _of(own, MASK) if "Augmented" not in face.path]
    bare_scenes, masked_scenes = _of(fit_part, NO_MASK), _of(fit_part, MASK)
    shop = Workshop(photographs, bare, masked, bare, seed=seed)
    worn = [shop.worn(number, seed) for number in range(counts.worn)]
    crowd = Workshop(photographs, bare + 4 * bare_scenes, masked + masked_scenes, bare, seed=seed + 1)
    hidden = [crowd.hidden(number, seed) for number in range(counts.hidden)]
    street = Workshop(
        photographs, 4 * bare_scenes + bare[:300], masked_scenes, bare_scenes + bare[:1300], seed=seed + 2
    )
    worn += [street.worn(number, seed + 2) for number in range(counts.worn_on_scenes)]
    return worn, hidden


def _of(faces: Iterable[Face], label: str) -> list[Face]:
    return [face for face in faces if face.label == label]


def views_of(items: Sequence[Item], copies: int, seed: int) -> NDArray[np.uint8]:
    """Random views of items, ``(items, copies, 112, 112, 3)``; each item has its own random numbers. Uses all cores."""
    with ProcessPoolExecutor() as pool:
        jobs = [(item, copies, seed, number) for number, item in enumerate(items)]
        made = list(pool.map(_views, jobs, chunksize=64))
    return np.stack(made) if made else np.empty((0, copies, SIDE_PX, SIDE_PX, 3), np.uint8)


def _views(job: tuple[Item, int, int, int]) -> NDArray[np.uint8]:
    item, copies, seed, number = job
    rng = np.random.default_rng([seed, number])
    return np.stack([make_view(item, rng) for _ in range(copies)])


def parts_of(items: Sequence[Item], views: NDArray[Any]) -> Part:
    """Views with their classes and the weights that :data:`WEIGHTS` gives them."""
    labels = np.array([THREE_CLASSES.index(item.label) for item in items], np.int64)
    weights = np.array([WEIGHTS[item.kind.split("_")[0]] for item in items])
    of_collections = np.array([item.kind in ("crop", "wild", "whole") for item in items])
    rare = of_collections & (labels == THREE_CLASSES.index(INCORRECT))
    return Part(views, labels, np.where(rare, _INCORRECT_WEIGHT, 1.0) * weights)


def base_items(root: Path, known: list[Known], faces: list[Annotated], without: set[str]) -> tuple[list[Item], ...]:
    """Items of k12 and wild, and items of the fit part of scenes without groups that have a mask worn incorrectly."""
    kept = set(incorrect_groups(faces))
    street = [face for face in faces if face.part == "fit" and face.group not in kept]
    return list(items_of_collections(root, known, "train", without)), list(items_of_scenes(root, street))


def real_parts(
    near: Sequence[Item], far: Sequence[Item], views: Callable[[Sequence[Item], int], NDArray[Any]]
) -> list[Part]:
    """Real faces of scenes, drawn more often than the base, those with a mask worn incorrectly much more often.

    Args:
        near: faces of groups with a mask worn incorrectly.
        far: faces of other groups.
        views: makes a number of views of each item, ``(items, copies, …)``.
    """
    worn = [item for item in near if item.label == INCORRECT]
    parts = []
    for chosen, copies, weight in (
        (worn, COPIES["incorrect"], _REAL_INCORRECT_WEIGHT),
        ([item for item in near if item.label != INCORRECT], COPIES["others"], _REAL_NEAR_WEIGHT),
        (far, COPIES["others"], _REAL_FAR_WEIGHT),
    ):
        labels = np.array([THREE_CLASSES.index(item.label) for item in chosen], np.int64)
        parts.append(Part(views(chosen, copies), labels, np.full(len(chosen), weight)))
    return parts


def folds(groups: Sequence[str], count: int, seed: int) -> dict[str, int]:
    """Group → its fold, of ``count``; groups are shuffled, then dealt out in turn."""
    order = np.random.default_rng(seed).permutation(sorted(groups))
    return {str(group): number % count for number, group in enumerate(order)}


def crops_of(root: Path, faces: Sequence[Annotated]) -> NDArray[np.uint8]:
    """Annotated faces as scoring cuts them, ``(faces, 112, 112, 3)``."""
    photographs, nowhere = Photographs(root), np.zeros((5, 2), np.float32)
    crops = [
        crop_face(photographs.open(face.path), face.box.astype(np.float32), nowhere, SIDE_PX, SIDE_PX, CropOptions())
        for face in faces
    ]
    return np.stack(crops)


def fit_later_layers(
    network: Any,
    parts: Sequence[Part],
    *,
    steps: int,
    rate: float,
    averaged: float,
    seed: int,
    layer: str = FROZEN_UP_TO,
) -> Any:
    """Fit a network's layers after ``layer``, in place.

    The outputs of the layers before are computed once for each view, half of which are mirrored.

    Args:
        network: a network of three classes.
        parts: uint8 views.
        steps: number of batches.
        rate: the highest learning rate.
        averaged: momentum of the averaged weights.
        seed: seed of draws and mirroring.
        layer: the last layer that is not changed.
    """
    first, rest = cut(network, layer)
    seen = [part._replace(views=_features(first, part.views, seed)) for part in parts]
    mixture = Mixture(seen, seed, mirror=False)
    print(", ".join(f"{name} {share:.3f}" for name, share in mixture.shares().items()), flush=True)
    return put_back(network, fit(rest, mixture, steps, rate, averaged=averaged))


def for_last_stage(network: Any, base: Sequence[Part]) -> list[Part]:
    """The base's sources, in the order of :data:`LAST_SHARES`, as the last stage draws them.

    Hard faces are drawn more often. In the collections only bare faces are, because many of their masks that a network
    calls incorrect really are worn incorrectly.
    """
    judged = list(base)
    judged[0] = with_hard_ones_more(network, base[0], masked=False)
    judged[1] = with_hard_ones_more(network, base[1])
    shares = LAST_SHARES.values()
    return [part._replace(weights=share * part.weights) for part, share in zip(judged, shares, strict=True)]


def with_hard_ones_more(network: Any, part: Part, *, masked: bool = True) -> Part:
    """Draw hard faces more often: bare ones that a network is not sure of, and masked ones that it calls incorrect.

    Args:
        network: a network of three classes.
        part: uint8 views of real photographs; the first view of each item is judged.
        masked: whether masked faces can be hard, too.
    """
    given = network.predict(part.views[:, 0], batch_size=_FEATURES_BATCH, verbose=0)
    mask, incorrect, bare = (THREE_CLASSES.index(name) for name in (MASK, INCORRECT, NO_MASK))
    hard = (part.labels == bare) & (given[:, bare] < _SURELY_BARE)
    hard |= (part.labels == mask) & (given[:, incorrect] > _HARDLY_INCORRECT) & masked
    return part._replace(weights=np.where(hard, _HARD_WEIGHT, 1.0) * part.weights)


def without_bare_looks(network: Any, part: Part) -> Part:
    """Leave out pictures of masks worn incorrectly if a view shows no mask, because it is cut off or too blurred.

    Args:
        network: a network of three classes, which judges the views.
        part: uint8 views.
    """
    given = network.predict(part.views.reshape(-1, *part.views.shape[2:]), batch_size=_FEATURES_BATCH, verbose=0)
    bare = given.reshape(*part.views.shape[:2], -1)[..., THREE_CLASSES.index(NO_MASK)].max(axis=1) > _LOOKS_BARE
    unseen = bare & (part.labels == THREE_CLASSES.index(INCORRECT))
    return part._replace(weights=np.where(unseen, 0.0, part.weights))


def _features(first: Any, views: NDArray[np.uint8], seed: int) -> NDArray[np.float16]:
    flat = views.reshape(-1, *views.shape[2:])
    rng = np.random.default_rng([seed, len(flat)])
    batches = []
    for start in range(0, len(flat), _FEATURES_BATCH):
        batch = np.array(flat[start : start + _FEATURES_BATCH])
        mirrored = rng.random(len(batch)) < 0.5
        batch[mirrored] = batch[mirrored][:, :, ::-1]
        batches.append(first.predict(batch, verbose=0).astype(np.float16))
    features = np.concatenate(batches)
    return features.reshape(*views.shape[:2], *features.shape[1:])
