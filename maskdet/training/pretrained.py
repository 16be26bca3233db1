"""A network's base: its pre-trained weights, and its features, computed once when it is frozen."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet.errors import ConfigError
from maskdet.labels import MASK, NO_MASK, THREE_CLASSES
from maskdet.model.architectures import ARCHITECTURES, COMPACT, EFFICIENTNET_LITE0
from maskdet.model.bundle import BUILTIN, BUILTIN_FOLDER
from maskdet.model.manifest import KERAS_FILE
from maskdet.training import efficientnet_weights
from maskdet.training.checkpoints import write_atomically

NO_WEIGHTS, IMAGENET = "none", "imagenet"

_BATCH = 512
_log = logging.getLogger(__name__)


def load_base_weights(model: Any, weights: str) -> None:
    """Put pre-trained weights into a network's base.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`.
        weights: ``none``; ``imagenet``, which Keras fetches or has cached (VGG19), or an installed package has
            (EfficientNet-Lite0); ``builtin`` or another bundle of the same architecture, for all of the network except
            the last layer if its classes differ; or a file: Keras weights of VGG19 without top, a checkpoint of
            EfficientNet-Lite0.

    Raises:
        ConfigError: the network has no base, or the weights cannot be had or do not fit.
    """
    if weights == NO_WEIGHTS:
        return
    if (bundle := starting_bundle(weights)) is not None:
        _load_all(model, bundle / KERAS_FILE)
        return
    base_output_of(model, f"weights: {weights}")
    if model.name in (EFFICIENTNET_LITE0, COMPACT):
        path = efficientnet_weights.checkpoint_path() if weights == IMAGENET else Path(weights)
        _log.info("started %d layers of the base from %s", efficientnet_weights.put_into(model, path), path.name)
        return
    source = _pretrained_vgg19(weights)
    copied = [layer for layer in source.layers if layer.weights]
    for layer in copied:
        model.get_layer(layer.name).set_weights(layer.get_weights())
    _log.info("started %d layers of the base from %s", len(copied), weights)


def starting_bundle(weights: str) -> Path | None:
    """The folder of the bundle that a network starts from; ``None`` if it starts from something else.

    Args:
        weights: as of :func:`load_base_weights`.
    """
    folder = BUILTIN_FOLDER if weights == BUILTIN else Path(weights)
    return folder if (folder / KERAS_FILE).is_file() else None


def _load_all(model: Any, file: Path) -> None:
    import keras

    source = keras.saving.load_model(file, compile=False)
    if source.name != model.name:
        raise ConfigError("weights", f"a bundle of {model.name}", f"{file}: {source.name}", "Name another bundle.")
    for layer, trained in zip(model.layers, source.layers, strict=True):
        if layer.name == "logit" and layer.output.shape != trained.output.shape:  # of other classes
            _start_last_layer(layer, trained)
            continue
        layer.set_weights(trained.get_weights())
    _log.info("started the network from %s", file)


def _start_last_layer(layer: Any, trained: Any) -> None:
    """Start a last layer from one with other classes: from three to two, or from scratch.

    With three classes, the logit of ``mask`` minus that of ``no_mask`` is the log odds where nothing is
    ``incorrect``.
    """
    kernel, bias = trained.get_weights()
    if (len(bias), layer.output.shape[-1]) != (len(THREE_CLASSES), 1):
        _log.info("the last layer starts anew: that of the bundle has %d outputs", len(bias))
        return
    mask, no_mask = THREE_CLASSES.index(MASK), THREE_CLASSES.index(NO_MASK)
    layer.set_weights([kernel[:, [mask]] - kernel[:, [no_mask]], bias[[mask]] - bias[[no_mask]]])
    _log.info("the last layer starts from the bundle's mask and no_mask; it forgets incorrect")


def base_output_of(model: Any, setting: str) -> Any:
    """The output tensor of a network's base.

    Raises:
        ConfigError: the network has no base, though a setting asks for one.
    """
    name = ARCHITECTURES[model.name].base_output
    if not name:
        with_base = [each.name for each in ARCHITECTURES.values() if each.base_output]
        raise ConfigError(
            setting, f"an architecture with a base: {', '.join(with_base)}", model.name, "Change either of them."
        )
    return model.get_layer(name).output


def split_base(model: Any) -> tuple[Any, Any]:
    """Split a network into two that share its layers: images to features, and features to probabilities.

    Raises:
        ConfigError: the network has no base.
    """
    import keras

    features = base_output_of(model, "frozen_base")
    return keras.Model(model.input, features), keras.Model(features, model.output)


def weights_sha256(model: Any) -> str:
    """SHA-256 over the bytes of a network's weights in their order."""
    digest = hashlib.sha256()
    for values in model.get_weights():
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def cached_features(base: Any, pixels: NDArray[np.uint8], folder: Path, name: str) -> NDArray[np.float32]:
    """The base's features of images, read from a file if an earlier run has written them.

    Args:
        base: images to features.
        pixels: uint8 ``(images, copies, height, width, 3)``.
        folder: where the file ``<name>-<hash of base and pixels>.npy`` is kept; an older file of that name is removed.
        name: of the set of images.

    Returns:
        float32 ``(images, copies, …)``.
    """
    digest = hashlib.sha256(weights_sha256(base).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    file = folder / f"{name}-{digest.hexdigest()[:16]}.npy"
    if file.is_file():
        kept: NDArray[np.float32] = np.load(file, allow_pickle=False)
        return kept
    _log.info("computing the base's features of %d images", pixels.shape[0] * pixels.shape[1])
    computed = base.predict(pixels.reshape(-1, *pixels.shape[2:]), batch_size=_BATCH, verbose=0)
    features: NDArray[np.float32] = np.asarray(computed, np.float32).reshape(*pixels.shape[:2], *computed.shape[1:])
    content = io.BytesIO()
    np.save(content, features, allow_pickle=False)
    folder.mkdir(parents=True, exist_ok=True)
    for older in folder.glob(f"{name}-*.npy"):
        older.unlink()
    write_atomically(file, content.getvalue())
    return features


def _pretrained_vgg19(weights: str) -> Any:
    import keras

    if weights != IMAGENET and not Path(weights).is_file():
        raise ConfigError("weights", "none, imagenet, or a Keras weights file", weights, "Correct the path.")
    try:
        if weights == IMAGENET:
            return keras.applications.VGG19(include_top=False, weights=IMAGENET)
        source = keras.applications.VGG19(include_top=False, weights=None)
        source.load_weights(weights)
    # Keras raises a bare Exception when it cannot fetch, and many kinds of errors when files differ
    except Exception as error:
        if weights == IMAGENET:
            remedy = "Connect to the internet, or name a local file: --set weights=vgg19_notop.h5."
            raise ConfigError("weights", "ImageNet weights through Keras", str(error), remedy) from error
        remedy = "Name a file that keras.applications.VGG19(include_top=False).save_weights wrote, or Keras' own."
        raise ConfigError("weights", "Keras weights of VGG19 without top", f"{weights}: {error}", remedy) from error
    return source
