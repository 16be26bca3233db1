"""Make new training images from others: draw masks on, cover faces, put them on other shoulders, cut them out.

    python -m tools.augment --config tools/configs/augment.yaml --output build/composites

Finds the faces in a training manifest's images, and writes DIR/mask/*.jpg, DIR/no_mask/*.jpg and DIR/images.parquet, a
training manifest that a recipe can name. The same input and settings always give the same images.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from maskdet.cli import console
from maskdet.config import load_yaml
from maskdet.cores import available_cores
from maskdet.faces.detector import load_detector
from maskdet.preparation.manifest import read_split
from tools.augmentation.making import compose, find_portraits
from tools.augmentation.settings import ComposeSettings
from tools.augmentation.writing import write_composites


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("augment", lambda: _compose(_parser().parse_args(argv)))


def _compose(arguments: argparse.Namespace) -> int:
    given = [f"output={json.dumps(arguments.output)}"] if arguments.output is not None else []  # JSON is YAML
    settings = load_yaml(ComposeSettings, arguments.config, [*given, *arguments.set])
    images = read_split(
        settings.manifest,
        settings.split,
        settings.sources or None,
        official_splits=settings.official_splits,
        drop_suspicious=True,
        drop_flat=True,
    )
    detect = load_detector(threads=available_cores()).detect
    portraits = find_portraits(images, detect, settings)
    scenes = sum(portrait.is_scene for portrait in portraits)
    print(
        f"{len(images)} images, {len(portraits)} with one usable face, {scenes} of them with surroundings", flush=True
    )
    for kind, count in write_composites(compose(portraits, detect, settings), settings).items():
        print(f"  {kind:17} {count:6,}")
    print(f"  {settings.output}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser("python -m tools.augment", __doc__)
    parser.add_argument("--config", help="a YAML file; see tools/configs/augment.yaml")
    parser.add_argument("--output", help="folder for the images and their manifest")
    console.add_set_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
