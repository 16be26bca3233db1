"""Draw a folder of faces to try everything on. No real person is shown.

    maskdet demo --output demo

writes 473 images (8 MB, a few seconds) as the cameras of two sites would leave them, with one file for every format
and every fault that scoring has a rule for. Score them with the path template that the summary prints. A second run
finds everything there and writes nothing. The true labels are in the file names. How well a model does on drawings
says nothing about photographs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from maskdet.cli import console
from maskdet.demo.faces import DEMO_TEMPLATE, DemoTree, write_demo_tree
from maskdet.errors import MaskdetError


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line; the defaults are those of :func:`maskdet.demo.faces.write_demo_tree`."""
    parser = console.Parser("demo", __doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="local folder, created if missing")
    parser.add_argument(
        "--seed", type=int, default=20260101, metavar="N", help="decides what is drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--images-per-hour", type=int, default=14, metavar="N", help="images per camera and hour (default: %(default)s)"
    )
    return parser.parse_args(argv)


def summarize(tree: DemoTree, folder: Path) -> str:
    """What was written, in a few lines for the terminal."""
    failures = ", ".join(f"{code} {count}" for code, count in sorted(tree.failures.items()))
    lines = [
        f"{folder}: {tree.images} synthetic images (drawings; no real person is shown)",
        f"  mask {tree.masked}, no mask {tree.unmasked}, broken or misplaced {sum(tree.failures.values())}: {failures}",
        f"  skipped by extension: {', '.join(tree.skipped)}",
        f"  files written {tree.written}, already there {len(tree.files) - tree.written}",
        f"  path template: {DEMO_TEMPLATE}",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parse_arguments(argv)
    try:
        tree = write_demo_tree(arguments.output, seed=arguments.seed, images_per_hour=arguments.images_per_hour)
    except MaskdetError as error:
        print(f"maskdet demo: {error}", file=sys.stderr)
        return error.exit_code
    print(summarize(tree, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
