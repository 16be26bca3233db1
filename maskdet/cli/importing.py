"""Make a bundle from a model of your own: a Keras file, a SavedModel, an ONNX or a LiteRT file.

    maskdet import model.keras --classes WithMask,WithoutMask --scale 1/255 --check labelled/ --output models/mine
    maskdet score … --model models/mine

Classes are in the order of the outputs; flow_from_directory sorts them by name, so they are its class_indices. For a
network with one sigmoid output, the first class is what 0 means and the second what 1 means. Two classes are mask and
no_mask, three are these and incorrect; names of folders such as WithMask work as well. Nothing in the file is run
before it has been inspected, and anything that could run as code is refused.

    maskdet import --detector face_detection_yunet_2023mar.onnx --output models/yunet
    maskdet score … --set faces.detector=models/yunet

makes a bundle of a face detector, CenterFace or YuNet as their authors publish them. CenterFace's weights are under the
MIT licence, YuNet's under Apache 2.0 (MIT in OpenCV's copy); the authors' licence applies.

Keras files and SavedModels need maskdet[tensorflow], ONNX files and detectors maskdet[onnx].
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from apache_beam.io.filesystems import FileSystems
from pydantic import ValidationError

from maskdet.beam.options import parse_beam_options
from maskdet.cli import console
from maskdet.errors import ConfigError, SourceError
from maskdet.evaluation.labelled_views import Views, labelled_views, unlabelled_views
from maskdet.evaluation.settings import TruthSettings
from maskdet.evaluation.truth import class_of_name
from maskdet.faces.importing import import_detector
from maskdet.labels import THREE_CLASSES, Decision
from maskdet.model.export import check_vacant
from maskdet.model.importing.bundling import (
    ContradictedError,
    Declaration,
    Sample,
    Source,
    import_model,
    opened_source,
)
from maskdet.model.importing.check import Check
from maskdet.model.importing.conversion import Conversion
from maskdet.model.importing.facts import Facts
from maskdet.model.importing.reading import SCALES, Colours, Reading, Scale, scale_of_statistics
from maskdet.model.manifest import ResizeFilter

_CHECKED_OF_A_CLASS = 200
_CALIBRATION_IMAGES = 200
_SHOWN_TRIALS = 8
_LITTLE_USE = 0.7


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is one of :data:`maskdet.errors.EXIT_CODES`."""
    return console.run_command("import", lambda: _import(sys.argv[1:] if argv is None else argv))


def _import(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(_with_joined_scale(argv))
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    if (arguments.model is None) == (arguments.detector is None):
        parser.error("expected either MODEL or --detector")
    check_vacant(arguments.output, overwrite=arguments.overwrite)
    if arguments.detector is not None:
        return _import_detector(arguments.detector, Path(arguments.output))
    _refuse_undeclared(arguments)
    with opened_source(arguments.model) as source:
        return _import_model(source, arguments)


def _with_joined_scale(argv: Sequence[str]) -> list[str]:
    """The arguments, with a scale that begins with a minus joined to its flag, lest it pass for a flag itself."""
    joined = list(argv)
    for place in range(len(joined) - 1):
        if joined[place : place + 2] == ["--scale", "-1..1"]:
            return [*joined[:place], "--scale=-1..1", *joined[place + 2 :]]
    return joined


def _parser() -> console.Parser:
    parser = console.Parser("import", __doc__)
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a file, or a SavedModel's folder, in any storage")
    parser.add_argument("--detector", type=Path, metavar="FILE", help="ONNX file of a face detector, in place of MODEL")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write the bundle to")
    console.add_overwrite_flag(parser)
    parser.add_argument("--classes", metavar="NAMES", help="what the outputs mean, in order, separated by commas")
    parser.add_argument("--scale", choices=tuple(SCALES), help="what was done to pixels from 0 to 255 in training")
    parser.add_argument("--mean", metavar="R,G,B", help="in place of --scale: subtracted from pixels from 0 to 1")
    parser.add_argument("--std", metavar="R,G,B", help="with --mean: what they were divided by then")
    parser.add_argument("--channels", choices=("RGB", "BGR"), help="default: RGB; BGR with --scale caffe")
    parser.add_argument("--layout", choices=("NHWC", "NCHW"), help="default: as the file says")
    parser.add_argument("--size", metavar="WxH", help="input in pixels, where the file leaves it open")
    parser.add_argument(
        "--activation", choices=("sigmoid", "softmax", "logits"), help="what the outputs are; default: by their values"
    )
    parser.add_argument(
        "--resize",
        choices=get_args(ResizeFilter),
        default="bilinear",
        help="of whole images (default: %(default)s); nearest is Keras' default in load_img, flow_from_directory",
    )
    parser.add_argument("--faces", choices=("detect", "whole"), help="what it was trained on; a run's default then")
    parser.add_argument("--mask-from", type=float, metavar="P", help="threshold, default: .5; see maskdet score")
    parser.add_argument("--no-mask-below", type=float, metavar="P", help="default: --mask-from")
    parser.add_argument("--incorrect-from", type=float, metavar="P", help="of three classes; default: .5")
    parser.add_argument("--name", help="the model's name in tables; default: the file's")
    parser.add_argument(
        "--check",
        metavar="LABELLED",
        help="labelled images: folders named after classes, or a list",
    )
    parser.add_argument("--check-column", default="label", metavar="NAME", help="of a list; default: %(default)s")
    parser.add_argument("--calibrate", metavar="IMAGES", help="images like those to be scored; adds an int8 file")
    return parser


def _import_detector(file: Path, folder: Path) -> int:
    manifest = import_detector(file, folder)
    print(f"{folder}: {manifest.model_id}, {manifest.description}")
    print(f"  score with it: --set faces.detector={folder}")
    return 0


def _refuse_undeclared(arguments: argparse.Namespace) -> None:
    if arguments.classes is None:
        remedy = (
            "No file says it; many models are the other way round than one thinks: Keras' flow_from_directory sorts "
            "folders by name, so that of WithMask and WithoutMask the first is 0, and a sigmoid's 1 means no mask: "
            "--classes mask,no_mask. Print class_indices where the model was trained, and add --check LABELLED."
        )
        raise ConfigError("--classes", "what the outputs mean, in their order", None, remedy)
    if arguments.scale is None and (arguments.mean is None or arguments.std is None):
        remedy = (
            "rescale=1/255 is 1/255, Keras' MobileNet -1..1, PyTorch's usual one imagenet, VGG and ResNet of Keras "
            "caffe; none if the network scales by itself. Or give --mean and --std."
        )
        raise ConfigError("--scale", f"one of {', '.join(SCALES)}", None, remedy)
    if arguments.scale is not None and (arguments.mean is not None or arguments.std is not None):
        raise ConfigError("--scale", "nothing beside --mean and --std", arguments.scale, "Give the one or the others.")


def _import_model(source: Source, arguments: argparse.Namespace) -> int:
    declaration = _declaration(source, arguments)
    labelled, representative = _images(declaration, arguments)
    sample = Sample(
        None if labelled is None else labelled.pixels,
        None if labelled is None else labelled.classes,
        None if representative is None else representative.pixels,
    )
    print(f"{source.name}: {_described(source.facts, declaration)}", flush=True)
    try:
        manifest, conversion = import_model(
            source, declaration, arguments.output, sample, overwrite=arguments.overwrite
        )
    except ContradictedError as error:
        print(_check_table(error.check))
        raise
    if conversion.check is not None:
        print(_check_table(conversion.check))
    print(f"{arguments.output}: {manifest.model_id}")
    print(_formats_table(conversion))
    print(f"  labels: {declaration.decision}" + ("" if _has_thresholds(arguments) else _THRESHOLDS_NOTE))
    if conversion.check is None:
        print("  the declaration was not checked: --check LABELLED holds it against a few hundred labelled images")
    elif (doubtful := conversion.check.doubtful) is not None:
        print(
            f"  LOOK AGAIN: {doubtful.reading} is about as often right, with a log loss of {doubtful.log_loss:.3f} in "
            f"place of {conversion.check.declared.log_loss:.3f}: what was done to pixels in training?"
        )
    return 0


_THRESHOLDS_NOTE = "; not fitted to this network: see the threshold table of maskdet evaluate"


def _has_thresholds(arguments: argparse.Namespace) -> bool:
    return arguments.mask_from is not None


def _declaration(source: Source, arguments: argparse.Namespace) -> Declaration:
    facts = source.facts
    height, width = _size(facts, arguments.size)
    scale = _scale(arguments)
    if arguments.layout and facts.layout and arguments.layout != facts.layout:
        raise ConfigError("--layout", f"{facts.layout}, as the file says", arguments.layout, "Leave it out.")
    try:
        reading = Reading(
            classes=_classes(arguments.classes),
            scale=scale.name,
            factor=scale.factor,
            offset=scale.offset,
            channels=arguments.channels or scale.channels,
            layout=arguments.layout or facts.layout or "NHWC",
            activation=arguments.activation or facts.activation,
        )
        decision = _decision(reading, arguments)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"the declaration: {message}") from error
    if facts.outputs is not None:
        reading.check_outputs(facts.outputs)
    name = arguments.name or re.sub(r"[^\w.-]+", "-", Path(source.name).stem) or "imported"
    return Declaration(reading, height, width, name, arguments.faces, decision, arguments.resize)


def _classes(text: str) -> tuple[str, ...]:
    given = [name.strip() for name in text.split(",")]
    known = [class_of_name(name, TruthSettings()) for name in given]
    for name, label in zip(given, known, strict=True):
        if label is None:
            raise ConfigError("--classes", f"{', '.join(THREE_CLASSES)}, or a usual name of them", name, "Correct it.")
    return tuple(label for label in known if label is not None)


def _scale(arguments: argparse.Namespace) -> Scale:
    if arguments.scale is not None:
        return SCALES[arguments.scale]
    mean, deviation = _colours("--mean", arguments.mean), _colours("--std", arguments.std)
    if min(deviation) <= 0:
        raise ConfigError("--std", "three numbers above 0", arguments.std, "Correct them.")
    return scale_of_statistics("statistics", mean, deviation)


def _colours(flag: str, text: str) -> Colours:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(flag, "three numbers, such as 0.5,0.5,0.5", text, "For red, green and blue.") from error
    return red, green, blue


def _size(facts: Facts, text: str | None) -> tuple[int, int]:
    stated = re.fullmatch(r"(\d+)x(\d+)", text) if text else None
    if text and not stated:
        raise ConfigError("--size", "width and height in pixels, such as 128x128", text, "Correct it.")
    width, height = (int(side) for side in stated.groups()) if stated else (facts.width, facts.height)
    if width is None or height is None:
        remedy = "The file leaves it open; name the size of the images that it was trained on."
        raise ConfigError("--size", "width and height in pixels, such as 128x128", None, remedy)
    if (facts.width or width, facts.height or height) != (width, height):
        raise ConfigError("--size", f"{facts.width}x{facts.height}, as the file says", text, "Leave it out.")
    return height, width


def _decision(reading: Reading, arguments: argparse.Namespace) -> Decision:
    mask_from = 0.5 if arguments.mask_from is None else arguments.mask_from
    below = mask_from if arguments.no_mask_below is None else arguments.no_mask_below
    three = reading.class_names == THREE_CLASSES
    if not three and arguments.incorrect_from is not None:
        raise ConfigError("--incorrect-from", "nothing, for two classes", arguments.incorrect_from, "Leave it out.")
    incorrect_from = (0.5 if arguments.incorrect_from is None else arguments.incorrect_from) if three else None
    return Decision(no_mask_below=below, mask_from=mask_from, incorrect_from=incorrect_from)


def _images(declaration: Declaration, arguments: argparse.Namespace) -> tuple[Views | None, Views | None]:
    mode, labelled, representative = declaration.faces or "detect", None, None
    if arguments.check is not None:
        with _named("--check"):
            labelled = labelled_views(
                arguments.check,
                declaration.input,
                mode,
                classes=declaration.reading.classes,
                most_of_a_class=_CHECKED_OF_A_CLASS,
                truth=TruthSettings(column=arguments.check_column),
            )
        _say_left_out("--check", labelled)
    if arguments.calibrate is not None:
        with _named("--calibrate"):
            representative = unlabelled_views(arguments.calibrate, declaration.input, mode, _CALIBRATION_IMAGES)
        _say_left_out("--calibrate", representative)
    return labelled, representative


@contextlib.contextmanager
def _named(flag: str) -> Iterator[None]:
    """Name the flag that the images came from, since the listing names another command's."""
    try:
        yield
    except (ConfigError, SourceError) as error:
        what = error.what.replace("--input", flag)
        what = what if flag in what else f"{flag}: {what}"
        raise type(error)(what, error.expected, error.received, error.remedy) from error


def _say_left_out(flag: str, views: Views) -> None:
    left = {"without a face": views.without_face, "not readable": views.failed}
    words = ", ".join(f"{count} {what}" for what, count in left.items() if count)
    if words:
        print(f"{flag}: {len(views.pixels)} images; left out: {words}", file=sys.stderr)


def _described(facts: Facts, declaration: Declaration) -> str:
    reading = declaration.reading
    means = (
        f"0 means {reading.classes[0]}, 1 means {reading.classes[1]}"
        if facts.outputs == 1
        else ", ".join(f"output {place} is {name}" for place, name in enumerate(reading.classes))
    )
    size = f"{declaration.width} × {declaration.height} {reading.channels}, {reading.layout}"
    return f"{facts.made_with}; takes {size}, scaled {reading.scale}; {means}"


def _check_table(check: Check) -> str:
    lines = [f"  {'right':>6}  {'log loss':>8}  {check.declared.images} labelled images, read"]
    for trial in check.trials[:_SHOWN_TRIALS]:
        lines.append(f"  {trial.accuracy:>6.1%}  {trial.log_loss:>8.3f}  {trial.reading}")
    if max(trial.accuracy for trial in check.trials) < _LITTLE_USE:
        lines.append("  no reading does well: are these images like those of its training, and faces cut out alike?")
    return "\n".join(lines)


def _formats_table(conversion: Conversion) -> str:
    """One row per format: how far it is from the network itself."""
    lines = [f"  {'format':<13}{'compared':>8}  {'largest difference':>18}  {'equal labels':>12}"]
    for one in conversion.written:
        row: Any = f"{one.images:>8}  {one.difference:>18.7f}  {one.equal_labels:>12.2%}"
        lines.append(f"  {one.format:<13}" + (f"  left out: {one.left_out}" if one.left_out else row))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
