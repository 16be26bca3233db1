"""Write a model in other formats: Keras, SavedModel, LiteRT float and int8, ONNX.

    maskdet export --model builtin --output models/compact [--formats litert_int8,onnx]

The output is a bundle that every command accepts. Formats that the model already has are copied byte for byte; the
others are made from its Keras file. A bundle that is already at --output is replaced only with --overwrite.

Each format runs on the bundle's golden images. If one strays from float32, the command ends with an error and writes
nothing. Making a format takes maskdet[tensorflow]; ONNX takes maskdet[tensorflow,onnx].
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from apache_beam.io.filesystems import FileSystems

from maskdet.beam.options import parse_beam_options
from maskdet.cli import console
from maskdet.model.conversion import Written, convert_bundle
from maskdet.model.formats import FORMATS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is one of :data:`maskdet.errors.EXIT_CODES`."""
    return console.run_command("export", lambda: _export(sys.argv[1:] if argv is None else argv))


def _export(argv: Sequence[str]) -> int:
    parser = console.Parser("export", __doc__)
    parser.add_argument("--model", required=True, help="a model bundle, or 'builtin'")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="local folder to write the bundle to")
    console.add_overwrite_flag(parser)
    formats = ",".join(FORMATS)
    parser.add_argument(
        "--formats", default=formats, metavar="NAMES", help="formats, separated by commas (default: %(default)s)"
    )
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes do not help the user
    names = console.names_of(arguments.formats)
    manifest, written = convert_bundle(arguments.model, arguments.output, names, overwrite=arguments.overwrite)
    print(f"{manifest.model_id}: {arguments.output}")
    print(_table(written))
    return 0


def _table(written: Iterable[Written]) -> str:
    """One row per format: what it is, its size, and how far it is from float32."""
    lines = [f"  {'format':<13}{'file':<20}{'MB':>7}  {'largest difference':>18}  {'allowed':>7}  origin"]
    for one in written:
        name, path, allowed = one.format.name, one.format.path, one.format.tolerance
        origin = "copied" if one.copied else "made"
        lines.append(
            f"  {name:<13}{path:<20}{one.size_bytes / 1e6:>7.2f}  {one.difference:>18.7f}  {allowed:>7g}  {origin}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
