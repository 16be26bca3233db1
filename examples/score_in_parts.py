"""Score each subfolder of a folder, such as one for each day, into an output of its own.

    python examples/score_in_parts.py photos/ tables/

Days that have been scored are not scored again, and their tables stay when their photographs are deleted.
"""

import sys
from pathlib import Path

import maskdet
from maskdet.errors import MaskdetError


def main(photos: Path, tables: Path) -> int:
    """Score folder by folder; a folder that fails does not keep the others from being scored."""
    worst = 0
    for folder in sorted(path for path in photos.iterdir() if path.is_dir()):
        try:
            images = maskdet.score(input=folder, output=tables / folder.name).run.images
            print(f"{folder.name}: {images.scored} scored, {images.no_face} without a face, {images.failed} failed")
        except MaskdetError as error:
            print(f"{folder.name}: {error}", file=sys.stderr)
            worst = max(worst, error.exit_code)
    return worst


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
