"""From a trained network to a model bundle: Keras, SavedModel, two LiteRT files, golden outputs and the manifest."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdet import storage
from maskdet.errors import ModelError, NotAFileError, NotFoundError, OutputError
from maskdet.model import litert_export
from maskdet.model.formats import FORMATS
from maskdet.model.manifest import GOLDEN_FILE, LITERT_INT8_FILE, MANIFEST_FILE, BundleFile, Manifest, is_manifest
from maskdet.model.training_images import write_training_images

GOLDEN_IMAGES = 8

_BUNDLE = "a model bundle"

# Without ONNX, which few need and which would make every bundle a third larger; `maskdet export` adds it.
_STANDARD_FORMATS = ("keras", "saved_model", "litert_float", "litert_int8")
_VERSIONED_PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "numpy", "pillow")


def check_vacant(output: str | Path, *, overwrite: bool) -> None:
    """Make sure that a bundle may and can be written to a folder: the one rule of `import`, `export` and `train`.

    Args:
        output: a folder, in any storage.
        overwrite: whether a bundle that is already there may be replaced.

    Raises:
        OutputError: it holds something that is not a bundle, or a bundle that may not be replaced.
        StorageError: it cannot be read, or nothing can be written there.
    """
    location = storage.normalize(str(output))
    with storage.write_errors(location):
        held = _held(location)
    if held is None or (held == _BUNDLE and overwrite):
        storage.check_writable(location)
        return
    if held == _BUNDLE:
        remedy = "Name another output, or replace the bundle with --overwrite."
        raise OutputError(f"--output {location}", "an absent or empty folder", held, remedy)
    raise OutputError(location, "an absent or empty folder, or a model bundle", held, "Name another output folder.")


def _held(location: str) -> str | None:
    """What a folder holds, in words; ``None`` where it is absent or empty."""
    if storage.is_local(location):
        folder = storage.local_path(location)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        other = "something else"
    else:
        present = next(iter(storage.list_folder(location)), None)
        if present is None:
            return None
        other = present.uri
    manifest = storage.join(location, MANIFEST_FILE)
    try:
        return _BUNDLE if is_manifest(storage.read_bytes(manifest)) else f"a {MANIFEST_FILE} that is no model bundle's"
    except (NotFoundError, NotAFileError):
        return other


def export_bundle(
    model: Any,
    folder: Path,
    draft: Manifest,
    *,
    representative: NDArray[np.uint8],
    training_images: Iterable[str] | None = None,
) -> Manifest:
    """Write a bundle; it appears under its name when it is complete.

    Args:
        model: a ``keras.Model`` of :func:`maskdet.model.architectures.build_model`, trained.
        folder: where the bundle goes; a bundle that is already there is replaced.
        draft: the manifest without ``versions``, ``files`` and ``fingerprint``, which are filled in.
        representative: RGB uint8 ``(images, height, width, 3)`` like those to be scored; gives the ranges for int8.
        training_images: SHA-256, in hexadecimal, of the image files that it was trained on; ``None``: the bundle does
            not say.

    Returns:
        The manifest as written, sealed.

    Raises:
        OutputError: the folder holds something that is not a bundle.
        StorageError: the folder cannot be written.
        ModelError: the images or the network do not have the size stated in the draft.
    """
    check_vacant(folder, overwrite=True)
    _check_shapes(model, draft, representative)
    with replaced_whole(folder) as building:
        _write_models(model, building, representative)
        golden = golden_inputs(draft.input.height, draft.input.width)
        np.savez_compressed(
            building / GOLDEN_FILE, allow_pickle=False, inputs=golden, **_expected_outputs(building, golden)
        )
        if training_images is not None:
            write_training_images(building, training_images)
        manifest = draft.model_copy(update={"versions": _versions(), "files": dict(list_files(building))}).sealed()
        (building / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


@contextlib.contextmanager
def replaced_whole(folder: Path) -> Iterator[Path]:
    """Build a folder beside its destination and move it there after the body; if that raises, nothing is left behind.

    Args:
        folder: its destination; a folder that is already there is replaced.

    Yields:
        The folder to build in.

    Raises:
        StorageError: it cannot be written.
    """
    with storage.write_errors(str(folder)), _built_beside(folder) as building:
        yield building
        building.chmod(0o755)  # mkdtemp creates folders that only their owner can read
        _put_in_place(building, folder)


@contextlib.contextmanager
def _built_beside(folder: Path) -> Iterator[Path]:
    """A temporary folder beside another; afterwards it is gone, and so are empty folders that were made for it."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield building
    finally:
        shutil.rmtree(building, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # in use, by what was built or by someone else
                parent.rmdir()


def list_files(folder: Path) -> Iterator[tuple[str, BundleFile]]:
    """The files below a folder: names relative to it, with size and hash, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            yield path.relative_to(folder).as_posix(), BundleFile(size_bytes=len(data), sha256=digest)


def golden_inputs(height: int, width: int) -> NDArray[np.uint8]:
    """Synthetic images on which every export is checked: flat, gradients, blocks and ovals with a covered lower half.

    Integer arithmetic only, so they are the same everywhere, and they compress well.

    Returns:
        uint8 RGB ``(8, height, width, 3)``.
    """
    y, x = np.mgrid[0:height, 0:width]
    u, v = 256 * x // width, 256 * y // height  # 0 to 255 across and down
    flat = np.zeros((height, width, 3), np.int64)
    gradient = np.stack([u, v, 255 - u], axis=-1)
    blocks = np.stack([(u // 32 + v // 32) % 2 * 255, u // 64 * 85, v // 64 * 85], axis=-1)
    images = [flat, flat + 255, gradient, blocks]
    for skin, cover in ((200, 235), (120, 40), (225, None), (90, None)):
        images.append(_oval(u, v, skin, cover))
    return np.stack(images).astype(np.uint8)


def _oval(u: NDArray[np.int64], v: NDArray[np.int64], skin: int, cover: int | None) -> NDArray[np.int64]:
    """A skin-coloured oval with dark eyes on a grey background; below the middle a cover, or a red mouth."""
    image = np.stack([110 + u // 8, 120 + v // 8, 130 + u // 8], axis=-1)
    oval = ((u - 128) * 4) ** 2 + ((v - 128) * 3) ** 2 < 360**2
    image[oval] = (skin, skin * 4 // 5, skin * 7 // 10)
    for eye in (100, 156):
        image[(u - eye) ** 2 + 2 * (v - 100) ** 2 < 120] = (40, 30, 30)
    if cover is None:
        image[(u - 128) ** 2 + 8 * (v - 185) ** 2 < 600] = (150, 50, 60)
    else:
        image[oval & (v > 130)] = (cover, cover, cover + 10)
    return image


def _check_shapes(model: Any, draft: Manifest, representative: NDArray[np.uint8]) -> None:
    stated = (draft.input.height, draft.input.width, 3)
    for what, shape in (("network input", tuple(model.input_shape[1:])), ("representative", representative.shape[1:])):
        if shape != stated:
            raise ModelError(what, f"{stated}, as the manifest states", shape, "Make the sizes agree.")
    if model.output_shape[-1] != draft.outputs:
        expected = f"{draft.outputs} for the classes {', '.join(draft.class_names)}"
        raise ModelError("network outputs", expected, model.output_shape[-1], "Make the classes agree.")


def _write_models(model: Any, folder: Path, representative: NDArray[np.uint8]) -> None:
    import keras

    # A rebuilt network has no optimizer, whose state would triple the file; Keras' own clone would keep it.
    bare = keras.Model.from_config(model.get_config())
    bare.set_weights(model.get_weights())
    for name in _STANDARD_FORMATS:
        made = FORMATS[name]
        if made.write is not None:
            made.write(bare, folder / made.path)
    (folder / LITERT_INT8_FILE).write_bytes(litert_export.convert_int8(bare, representative))


def _expected_outputs(folder: Path, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    run = [FORMATS[name] for name in _STANDARD_FORMATS if FORMATS[name].golden_output]
    return {made.golden_output: made.run(folder / made.path, images) for made in run}


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in _VERSIONED_PACKAGES}


def _put_in_place(building: Path, folder: Path) -> None:
    """Rename; a bundle in the way is moved aside first, because a folder with content cannot be renamed onto."""
    if not folder.exists():
        os.rename(building, folder)
        return
    replaced = building.with_name(f"{building.name}.replaced")
    os.rename(folder, replaced)
    os.rename(building, folder)
    if replaced.is_symlink():
        replaced.unlink()  # the target of a link belongs to someone else
    else:
        shutil.rmtree(replaced)
