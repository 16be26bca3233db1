"""Train a model from a recipe, and write it as a bundle.

    maskdet train --config compact --output models/compact

Relative data folders in the recipe are relative to the environment variable MASKDET_DATA. `--set epochs=3` changes one
setting. `--smoke` runs the whole recipe on a few images, in seconds. <output>.history.csv gets one row per epoch, and
<output>.checkpoints holds the full state. If a training is killed, the same command continues it, and ends with the
same weights (bit for bit where the recipe says `deterministic: true`). A bundle that is already at --output is replaced
only with --overwrite.

KERAS_BACKEND=jax (or torch) fits on a GPU without TensorFlow. The same command without it then exports what was fitted.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from maskdet.cli import console
from maskdet.config import load_yaml
from maskdet.model.manifest import Manifest
from maskdet.named_configs import RECIPES, find_config
from maskdet.training.data import data_folder
from maskdet.training.fit import Resume, RunFiles, train
from maskdet.training.recipe import Recipe


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is one of :data:`maskdet.errors.EXIT_CODES`."""
    return console.run_command("train", lambda: _train(_parse(argv)))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = console.Parser("train", __doc__)
    parser.add_argument(
        "--config",
        required=True,
        metavar="NAME",
        help="recipe: compact, reference_cnn, … (maskdet config list), or a YAML file",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write the bundle to")
    console.add_overwrite_flag(parser)
    console.add_set_flag(parser, "change one setting: epochs=3, augmentation.copies=2")
    going_on = parser.add_mutually_exclusive_group()
    going_on.add_argument("--resume", action="store_true", help="continue from a checkpoint, or stop if there is none")
    going_on.add_argument("--restart", action="store_true", help="start over, even if there is a checkpoint")
    parser.add_argument("--smoke", action="store_true", help="try the recipe: two steps on 16 images per class")
    return parser.parse_args(argv)


def _train(options: argparse.Namespace) -> int:
    recipe = load_yaml(Recipe, find_config(options.config, RECIPES), options.set)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes do not help the user
    resume: Resume = "required" if options.resume else "never" if options.restart else "if_possible"
    wanted = recipe.smoke() if options.smoke else recipe
    manifest = train(wanted, data_folder(), options.output, resume=resume, overwrite=options.overwrite)
    if manifest is None:
        print(f"fitted: {RunFiles(options.output).fitted}; run this again with KERAS_BACKEND=tensorflow to export it")
    else:
        _report(manifest, options.output)
    return 0


def _report(manifest: Manifest, output: Path) -> None:
    size_bytes = sum(file.size_bytes for file in manifest.files.values())
    print(f"{manifest.model_id}: {output}, {len(manifest.files)} files, {size_bytes / 1e6:.1f} MB")
    print(f"trained on {manifest.training_data.images} images: {manifest.training_data.description}")
    measured = manifest.operating_characteristics
    if measured is not None:
        print(
            f"mask from {manifest.decision.mask_from}: {measured.masked_right} of {measured.masked_total} masked and "
            f"{measured.unmasked_right} of {measured.unmasked_total} unmasked right on {measured.dataset}"
        )


if __name__ == "__main__":
    sys.exit(main())
