"""Make scenes with known faces, on which to measure detection and classification.

    python -m tools.make_scenes --output scenes/ --count 300 --seed 2027 --crops crops/    # crops/with_mask/… …
    maskdet evaluate --input scenes/ --faces detect --set truth.boxes=scenes/annotations.json --output results/

Puts labelled face crops, from a folder or a training manifest's split (--set manifest=DIR/images.parquet), on drawn
backgrounds. Writes DIR/scene-00000.jpg …, annotations.json (COCO), and the same annotations as annotations.parquet. The
same crops, seed and settings always give the same scenes. Every setting is in tools/configs/scenes.yaml.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from maskdet import storage
from maskdet.cli import console
from maskdet.config import load_yaml
from maskdet.errors import ConfigError, SourceError
from maskdet.evaluation.annotations import read_coco, write_parquet
from maskdet.preparation.manifest import read_split
from tools.scenes.scenes import FaceSource, make_scene, write_scenes
from tools.scenes.settings import SceneSettings, check_classes, find_crops, find_images


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("scenes", lambda: _scenes(_parser().parse_args(argv)))


def _scenes(arguments: argparse.Namespace) -> int:
    flags = ("output", "count", "seed", "crops")
    given = [f"{name}={json.dumps(vars(arguments)[name])}" for name in flags if vars(arguments)[name] is not None]
    settings = load_yaml(SceneSettings, arguments.config, [*given, *arguments.set])  # JSON is YAML
    if not settings.output:
        raise ConfigError("--output", "a folder", "nothing", "Say where to write the scenes.")
    options, crops = settings.look.options(), _crops(settings)
    photographs = find_images(Path(settings.backgrounds)) if settings.backgrounds is not None else []
    folder = Path(settings.output)
    scenes = (make_scene(settings.seed, index, crops, photographs, options) for index in range(settings.count))
    annotations = write_scenes(folder, scenes)
    images = read_coco(str(annotations))
    write_parquet(str(annotations.with_suffix(".parquet")), images)
    labels = [label for image in images for label in image.labels]
    print(
        f"{len(images):,} scenes with {labels.count('mask'):,} masked and {labels.count('no_mask'):,} unmasked faces, "
        f"{sum(not image.labels for image in images):,} without any, from {len(crops):,} crops\n  {annotations}"
    )
    return 0


def _crops(settings: SceneSettings) -> list[FaceSource]:
    if settings.crops is not None:
        return find_crops(Path(settings.crops), settings.skip)
    assert settings.manifest is not None
    sources = settings.sources or None
    rows = read_split(settings.manifest, settings.split, sources, drop_suspicious=True, drop_flat=True)
    if far := [uri for uri, _, _ in rows if not storage.is_local(uri)]:
        raise SourceError(f"manifest {settings.manifest}", "local images", far[0], "Copy them to this machine.")
    kept = [(uri, label) for uri, label, _ in rows if not any(part in uri for part in settings.skip)]
    crops = [FaceSource(storage.local_path(uri), "mask" if label == "mask" else "no_mask") for uri, label in kept]
    return check_classes(settings.manifest, crops)


def _parser() -> console.Parser:
    parser = console.Parser("python -m tools.make_scenes", __doc__)
    parser.add_argument("--output", metavar="DIR", help="local folder for the scenes; must be missing or empty")
    parser.add_argument("--count", type=int, help="how many scenes (default: 300)")
    parser.add_argument("--seed", type=int, help="another seed gives other scenes (default: 2027)")
    parser.add_argument("--crops", metavar="DIR", help="face crops in folders named by class")
    parser.add_argument("--config", help="a YAML file; see tools/configs/scenes.yaml")
    console.add_set_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
