"""Watch a camera or a film as it plays.

    maskdet watch rtsp://camera/stream | /dev/video0 | film.mp4
                  [--frames-per-second 10] [--page 8080] [--parquet DIR] [--model builtin] [--set section.key=value …]

Scores the newest frame, drops and counts those that arrived meanwhile, and prints a line of JSON per frame: faces
with boxes, labels and probabilities, and latency_ms, from the frame's arrival until its faces had labels. A stream that
breaks is opened again, after increasing waits. With --page, a page on this machine alone (127.0.0.1) shows the picture
with its boxes, and the rate of the last hour. With --parquet, the faces of each minute become a file with the columns
of the predictions. Ctrl-C or SIGTERM ends it. Reading videos takes the extra maskdet[video].
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence

from PIL import Image

from maskdet import storage
from maskdet.cli import console
from maskdet.config import ScoreSettings, load_yaml
from maskdet.errors import ConfigError, SourceError
from maskdet.live.capture import Capture, Source
from maskdet.live.minutes import Minutes
from maskdet.live.page import Page, serving
from maskdet.live.watching import LastHour, Observation, watch
from maskdet.report.marks import probability_of
from maskdet.report.previews import MarkedFace, draw_faces
from maskdet.scoring.predicting import load_face_model
from maskdet.video.reading import decoder_identity

_LOOK_THREADS = 1  # one frame at a time; the decoder has the other core


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("watch", lambda: _watch(sys.argv[1:] if argv is None else argv))


def _watch(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    source = Source.of(arguments.source)
    _refuse_no_film(source)
    decoder_identity()  # refuses if it is missing
    given = load_yaml(ScoreSettings, arguments.config, _overrides(arguments))
    model = load_face_model(given)
    minutes = None
    if arguments.parquet:
        minutes = Minutes(storage.normalize(arguments.parquet), str(source), model.manifest.model_id)
    page, hour = Page(), LastHour()
    with contextlib.ExitStack() as open_things:
        if arguments.page is not None:
            address = open_things.enter_context(serving(page, arguments.page))
            print(f"maskdet watch: {address}", file=sys.stderr)
        capture = open_things.enter_context(Capture(source, told=_say))
        try:
            for seen in watch(capture, model, arguments.frames_per_second):
                if seen is None:
                    continue
                hour.add(seen.prediction)
                if minutes is not None:  # first, so that whoever reads a line finds its faces in a file
                    minutes.add(seen)
                print(json.dumps(seen.line(), separators=(",", ":")), flush=True)
                if arguments.page is not None:
                    _show(page, seen, hour)
        except KeyboardInterrupt:  # also SIGTERM: this is how it is meant to end
            pass
        finally:
            if minutes is not None:
                minutes.flush()
        counts, fault = capture.counts, capture.fault
    said = f"{counts.decoded:,} frames decoded, {counts.dropped:,} dropped, {counts.reconnects:,} reconnects"
    print(f"maskdet watch: {said}", file=sys.stderr)
    if fault is not None:
        raise SourceError(str(source), "a video that can be watched", str(fault), "Check the path.") from fault
    return 0


def _refuse_no_film(source: Source) -> None:
    """Refuse a path without a file before the model is loaded."""
    expected = "a video file, /dev/videoN or a stream"
    if source.kind == "file" and storage.is_local_folder(source.uri):
        raise SourceError("SOURCE", expected, f"the folder {source}", "Name one video in it, or score the folder.")
    if source.kind == "file" and not storage.exists(source.uri):
        remedy = f"Nothing is there; {storage.did_you_mean(source.uri)}"
        raise SourceError("SOURCE", expected, str(source), remedy)


def _say(reason: str, seconds: float) -> None:
    print(f"maskdet watch: {reason}; opened again in {seconds:g} s", file=sys.stderr)


def _show(page: Page, seen: Observation, hour: LastHour) -> None:
    faces = [
        MarkedFace(face.label, probability_of(face.label, face.probabilities), face.box, face.score)
        for face in seen.prediction.faces
    ]
    height, width = seen.pixels.shape[:2]
    said = {"mask_rate": hour.mask_rate, "latency_ms": round(seen.latency_s * 1000), "dropped": seen.counts.dropped}
    page.show(draw_faces(Image.fromarray(seen.pixels), (width, height), faces), said)


def _overrides(arguments: argparse.Namespace) -> list[str]:
    known = {"faces.mode": "detect", "scoring.threads": _LOOK_THREADS, "model.uri": arguments.model}
    given = [f"{key}={json.dumps(value)}" for key, value in known.items() if value is not None]
    return [*given, *arguments.set]


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1000:
        raise ConfigError("--frames-per-second", "a number above 0, up to 1000", text, "Leave it out for 10.")
    return value


def _parser() -> console.Parser:
    parser = console.Parser("watch", __doc__)
    parser.add_argument("source", metavar="SOURCE", help="rtsp://…, /dev/video0, or a video file, played at its pace")
    parser.add_argument(
        "--frames-per-second", type=_positive, default=10.0, metavar="N", help="most frames to look at (default: 10)"
    )
    parser.add_argument("--page", type=int, metavar="PORT", help="serve a page on 127.0.0.1; 0 takes any free port")
    parser.add_argument("--parquet", metavar="DIR", help="write the faces of each minute below DIR/predictions")
    parser.add_argument("--model", help="a model bundle, or 'builtin' (default)")
    parser.add_argument("--config", help="settings: a YAML file, or a name (maskdet config list)")
    console.add_set_flag(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
