"""See what a model says about some images or videos.

    maskdet preview photos/*.jpg gs://bucket/a.png --output previews/ [--model builtin] [--faces detect]
                    [--set faces.min_face_px=32 …] [Beam options, for stores that need them]

Writes each image as a picture of 480 to 1,600 pixels, with a box, a label and a probability at each face, and prints
one line per face. Images are files, folders, globs or list files in any storage; they are scored as `maskdet score`
scores them. A video becomes an MP4 of the frames that `maskdet score` would use (video.frames_per_second), in which
each person has a number. Blue is mask, vermilion no_mask, yellow uncertain. A probability is that of the label beside
it; beside uncertain, that there is a mask. If an image or a video cannot be scored,
its line has its failure code, the others are still shown, and the exit code is 3. A preview is named after its
image and the hash of its URI, so that images of the same name do not collide. Previews show faces: delete them when you
have looked.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Literal

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.cli import console
from maskdet.config import ScoreSettings, load_yaml
from maskdet.errors import ConfigError, ImageFault, SourceError
from maskdet.inputs.references import ImageRef
from maskdet.inputs.videos import resolve_mode, video_extensions
from maskdet.report.films import preview_film
from maskdet.report.marks import printable
from maskdet.report.previews import MarkedFace, Preview, Previewer, find_images, preview_name, write_preview
from maskdet.scoring.predicting import FaceModel, load_parts

_SETTING_FLAGS = {
    "--output": ("output", "folder or prefix for the previews"),
    "--model": ("model.uri", "a model bundle, or 'builtin' (default)"),
    "--backend": ("model.backend", "litert (default), tensorflow or onnx"),
    "--precision": ("model.precision", "int8 or float32 (default: int8 on litert, else float32)"),
    "--faces": ("faces.mode", "detect: find the faces; whole: each image is one face; auto (default): by the model"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("preview", lambda: _preview(sys.argv[1:] if argv is None else argv))


def _preview(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    settings = load_yaml(ScoreSettings, arguments.config, _overrides(arguments))
    if not settings.output:
        raise ConfigError("--output", "a folder or prefix", "nothing", "Say where to write the previews.")
    refs = find_images(settings, video_extensions(resolve_mode(settings.video), settings.source.extensions))
    images = [ref for ref in refs if ref.segment is None]
    films = [ref.uri for ref in refs if ref.segment is not None]
    parts = load_parts(settings)
    failed = _preview_images(images, Previewer(*parts), settings, arguments.format) if images else 0
    failed += _preview_films(films, FaceModel(*parts), settings) if films else 0
    if failed:
        what = "images and videos" if images and films else "videos" if films else "images"
        remedy = "The lines above say why." + (f" The other {what} are shown." if failed < len(refs) else "")
        raise SourceError(what, f"{len(refs):,} that can be scored", len(refs) - failed, remedy)
    return 0


def _preview_images(
    refs: Sequence[ImageRef], previewer: Previewer, settings: ScoreSettings, kind: Literal["jpeg", "png"]
) -> int:
    """Write each image with its faces marked; returns how many could not be scored."""
    folder = storage.normalize(settings.output)
    faces = faceless = failed = 0
    for preview in previewer.previews(refs):
        written = "" if preview.fault is not None else write_preview(folder, preview, kind)
        for line in _lines(preview):
            print(f"{printable(preview.uri)}  {line}  {written.rpartition('/')[2]}".rstrip(), flush=True)
        faces, failed = faces + len(preview.faces), failed + (preview.fault is not None)
        faceless += preview.fault is None and not preview.faces
    print(
        f"{len(refs):,} images: {faces:,} faces, {faceless:,} images without one, {failed:,} failed; "
        f"{len(refs) - failed:,} previews in {folder}"
    )
    return failed


def _preview_films(uris: Sequence[str], model: FaceModel, settings: ScoreSettings) -> int:
    """Write each video with its faces marked; returns how many could not be read."""
    folder = storage.normalize(settings.output)
    failed = 0
    for uri in uris:
        try:
            made = preview_film(uri, model, settings)
        except ImageFault as fault:
            failed += 1
            print(f"{printable(uri)}  failed  {printable(str(fault))}", flush=True)
            continue
        name = preview_name(uri, "mp4")
        storage.write_bytes(storage.join(folder, name), made.film)
        print(
            f"{printable(uri)}  {made.frames:,} frames: {made.faces:,} faces, {made.people:,} people  {name}",
            flush=True,
        )
    print(f"{len(uris):,} videos: {failed:,} failed; {len(uris) - failed:,} previews in {folder}")
    return failed


def _lines(preview: Preview) -> list[str]:
    """What is printed of an image: a line per face, or one that says why there is none."""
    if preview.fault is not None:
        return [f"failed  {printable(str(preview.fault))}"]
    return [f"face {index}  {_words(face)}" for index, face in enumerate(preview.faces)] or ["no face"]


def _words(face: MarkedFace) -> str:
    text = f"{face.label:<9}  {face.probability:.3f}"
    if face.box is None:
        return f"{text}  whole image"
    left, top, width, height = face.box
    return f"{text}  {width:.0f} x {height:.0f} px at {left:.0f}, {top:.0f}  detected {face.score or 0:.2f}"


def _overrides(arguments: argparse.Namespace) -> list[str]:
    values = [(key, vars(arguments)[key]) for key in ("input", *(key for key, _ in _SETTING_FLAGS.values()))]
    given = [f"{key}={json.dumps(value)}" for key, value in values if value]  # JSON is YAML
    return [*given, *arguments.set]


def _parser() -> console.Parser:
    parser = console.Parser("preview", __doc__)
    parser.add_argument(
        "input", nargs="+", metavar="IMAGE", help="images or videos: files, folders, globs or list files (.txt)"
    )
    for flag, (key, text) in _SETTING_FLAGS.items():
        parser.add_argument(flag, dest=key, help=text)
    parser.add_argument(
        "--format", choices=["jpeg", "png"], default="jpeg", help="format of the previews (default: jpeg)"
    )
    parser.add_argument("--config", help="settings: a YAML file, or a name (maskdet config list)")
    console.add_set_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
