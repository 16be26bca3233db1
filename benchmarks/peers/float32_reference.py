"""The reference for decisions: full-size decoding with Pillow and the float32 Keras model; not timed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageOps

from benchmarks.peers.command import CORES, parse_job, write

BATCH = 256


def main() -> None:
    job = parse_job(__doc__)
    model = keras.models.load_model(job.keras, compile=False)

    def decode(path: str) -> Any:
        with Image.open(path) as image:
            return np.asarray(upright_rgb(image).resize((job.width, job.height), Image.Resampling.BILINEAR))

    files = job.files
    with ThreadPoolExecutor(CORES) as pool:
        parts = [
            model.predict_on_batch(np.stack(list(pool.map(decode, files[start : start + BATCH]))))
            for start in range(0, len(files), BATCH)
        ]
    write(job.output, files, np.concatenate(parts))


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as viewers show it: rotated as its EXIF block says, over white where it is transparent."""
    upright = ImageOps.exif_transpose(image)
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    alpha = upright.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", alpha.size, "white"), alpha).convert("RGB")


if __name__ == "__main__":
    main()
