"""Make a bundle of a face detector of your own: CenterFace's or YuNet's ONNX file, as their authors publish them.

    maskdet import --detector face_detection_yunet_2023mar.onnx --output models/yunet
    maskdet score … --set faces.detector=models/yunet

Takes maskdet[onnx], and so does scoring with the bundle. CenterFace's weights are under the MIT licence, YuNet's under
Apache 2.0 (MIT in OpenCV's copy); the bundle says where its network is from, and the licence stays its authors'.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from maskdet.cli import console
from maskdet.faces.importing import import_detector


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is one of :data:`maskdet.errors.EXIT_CODES`."""
    return console.run_command("import", lambda: _import(sys.argv[1:] if argv is None else argv))


def _import(argv: Sequence[str]) -> int:
    parser = console.Parser("import", __doc__)
    parser.add_argument("--detector", required=True, type=Path, metavar="FILE", help="ONNX file")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="local folder to write the bundle to")
    arguments = parser.parse_args(argv)
    manifest = import_detector(arguments.detector, arguments.output)
    print(f"{arguments.output}: {manifest.model_id}, {manifest.description}")
    print(f"  score with it: --set faces.detector={arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
