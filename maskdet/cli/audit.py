"""Draw a random sample of faces, label it by hand, and say what that means for the numbers.

    maskdet audit sample tables/ --size 300 --by site --sample audit.parquet
    maskdet audit label audit.parquet --rater ana
    maskdet audit apply tables/ audit.parquet --labels audit.ana.csv --labels audit.ben.csv [--output audit.json]

"sample" draws more faces where the model is unsure, and keeps each face's chance of being drawn. "label" opens a page
on this machine: one key for each face, crops read from their images at that moment, the model's label hidden. With two
people, labels can be trusted more, and the command says how far they agree. "apply" prints rates that hold whatever the
model gets wrong, how often the model is right on these photographs, and whether that differs from what its bundle says.
The labels then count in the compliance tables in place of the model's (corrections.parquet).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import webbrowser
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.audit.applying import estimate_audit
from maskdet.audit.label_page import LabelSession, address, serve
from maskdet.audit.labels import Agreed, agree, as_corrections, keys_of, read_labels, read_sample
from maskdet.audit.sampling import draw_sample
from maskdet.beam.options import parse_beam_options
from maskdet.cli import console, summary
from maskdet.config import ImagingSettings, ScoringSettings
from maskdet.errors import ConfigError
from maskdet.images.preprocessing import ImageLimits
from maskdet.tables.disclosure import refuse_small_groups
from maskdet.tables.layout import Layout, encode_table
from maskdet.tables.recount import correct_faces
from maskdet.tables.run_records import read_run
from maskdet.tables.snapshot import current_snapshot


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("audit", lambda: _audit(sys.argv[1:] if argv is None else argv))


def _audit(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest))
    steps = {"sample": _sample, "label": _label, "apply": _apply}
    return steps[arguments.step](arguments)


def _parser() -> console.Parser:
    parser = console.Parser("audit", __doc__)
    steps = parser.add_subparsers(dest="step", required=True, parser_class=argparse.ArgumentParser)
    sample = steps.add_parser("sample", help="draw faces to label", allow_abbrev=False)
    sample.add_argument("output", help="the output of scoring runs")
    sample.add_argument("--size", type=int, default=300, metavar="N", help="faces to draw (default: %(default)s)")
    sample.add_argument("--by", default="", metavar="KEYS", help="groups that each get a share, such as site")
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="names the random choice (default: 0)")
    sample.add_argument("--sample", default="audit.parquet", metavar="FILE", help="to write (default: %(default)s)")
    console.add_small_groups(sample)
    label = steps.add_parser("label", help="open a page to label them in", allow_abbrev=False)
    label.add_argument("sample", help="the file that `audit sample` wrote")
    label.add_argument("--rater", required=True, metavar="NAME", help="who labels; names the file: audit.NAME.csv")
    label.add_argument("--port", type=int, default=0, metavar="N", help="of this machine (default: any that is free)")
    label.add_argument("--no-browser", action="store_true", help="print the address only")
    apply = steps.add_parser("apply", help="say what the labels mean, and put them into force", allow_abbrev=False)
    apply.add_argument("output", help="the output of scoring runs")
    apply.add_argument("sample", help="the file that `audit sample` wrote")
    apply.add_argument("--labels", required=True, action="append", metavar="FILE", help="of one rater; repeatable")
    apply.add_argument("--output", dest="result", metavar="FILE", help="a .json or .parquet file to write")
    apply.add_argument("--confidence", type=float, default=0.95, help="of intervals (default: %(default)s)")
    apply.add_argument(
        "--no-corrections", action="store_true", help="only say; leave the compliance tables as they are"
    )
    apply.add_argument(
        "--wait", type=float, default=0.0, nargs="?", const=math.inf, metavar="SECONDS", help="as of maskdet score"
    )
    console.add_small_groups(apply)
    return parser


def _sample(arguments: argparse.Namespace) -> int:
    layout = Layout(storage.normalize(arguments.output))
    by = console.names_of(arguments.by)
    storage.within_deadline(lambda: current_snapshot(layout), layout.root)
    sample = draw_sample(layout, arguments.size, by, arguments.seed, small_groups=arguments.small_groups)
    uri = storage.normalize(arguments.sample)
    storage.write_bytes(uri, encode_table(sample, 100_000))
    strata = sample.group_by(["stratum", "stratum_faces", "stratum_drawn", "band", *by]).aggregate([])
    print(summary.format_table(strata.sort_by("stratum").select([*by, "band", "stratum_faces", "stratum_drawn"])))
    print(f"{sample.num_rows:,} faces: {uri}")
    print(f"next: maskdet audit label {arguments.sample} --rater NAME")
    return 0


def _label(arguments: argparse.Namespace) -> int:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", arguments.rater):
        raise ConfigError("--rater", "letters, digits, - and _", arguments.rater, "It becomes part of a file's name.")
    uri = storage.normalize(arguments.sample)
    stem = uri.removesuffix(".parquet")
    labels_uri = f"{stem}.{arguments.rater}.csv"
    scoring = ScoringSettings()
    limits = ImageLimits.of(ImagingSettings(), scoring.decoder_seconds)
    session = LabelSession(read_sample(uri), labels_uri, limits, scoring.fetch_attempts)
    server = serve(session, arguments.port)
    where = address(server, session)
    print(f"{len(session):,} faces; labels go to {labels_uri}\n{where}\nCtrl-C ends it; labels are saved at each key")
    if not arguments.no_browser:
        webbrowser.open(where)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        done = sum(label is not None for label in session.given())
        print(f"\n{done:,} of {len(session):,} faces labelled: {labels_uri}")
    finally:
        server.server_close()
    return 0


def _apply(arguments: argparse.Namespace) -> int:
    if arguments.result and not arguments.result.endswith((".json", ".parquet")):
        raise ConfigError("--output", "a file that ends in .json or .parquet", arguments.result, "Name one.")
    layout = Layout(storage.normalize(arguments.output))
    snapshot = storage.within_deadline(lambda: current_snapshot(layout), layout.root)
    run, sample = read_run(layout, snapshot.run_id), read_sample(storage.normalize(arguments.sample))
    refuse_small_groups([run], allowed=arguments.small_groups)
    models = sorted(set(sample["model_id"].to_pylist()))
    if models != [run.model["id"]]:
        raise ConfigError("the sample", f"faces labelled by {run.model['id']}", models, "Draw a new sample.")
    given = {name: read_labels(storage.normalize(name)) for name in arguments.labels}
    agreed = agree(given, arguments.confidence)
    three = "incorrect" in run.classes
    table = estimate_audit(sample, agreed.labels, run.errors, arguments.confidence, three=three)
    print(describe(table, agreed, sample.num_rows))
    if arguments.result:
        storage.write_bytes(storage.normalize(arguments.result), encode(table, agreed, arguments.result))
    if not arguments.no_corrections:
        corrections = as_corrections(agreed.labels, keys_of(sample))
        recount = correct_faces(layout, corrections, datetime.now(UTC), wait_s=arguments.wait)
        print(summary.describe_output(recount, layout))
        if error := recount.outcome():
            raise error
    return 0


def describe(table: pa.Table, agreed: Agreed, drawn: int) -> str:
    """What an audit shows, in words and in a table."""
    lines = [f"{len(agreed.labels):,} of {drawn:,} faces labelled; {len(agreed.disputed):,} disputed, and left out"]
    for (first, second), found in agreed.agreement.items():
        kappa = "—" if found.kappa is None else f"{found.kappa:.3f} ({found.low:.3f} to {found.high:.3f})"
        lines.append(f"{first}, {second}: {found.agreed:.1%} of {found.faces:,} alike, Cohen's kappa {kappa}")
    names = table.column_names[: table.column_names.index("scope")]
    shown = [*names, "quantity", "share", "share_low", "share_high", "known", "drift_low", "drift_high", "labelled"]
    lines += [summary.format_table(table.select(shown))]
    drifted = [row["quantity"] for row in table.to_pylist() if row["scope"] == "all" and _drifted(row)]
    if drifted:
        lines.append(
            f"DRIFT: {', '.join(drifted)} differ from what the bundle says; corrected rates are not to be trusted"
        )
    return "\n".join(lines)


def _drifted(row: dict[str, Any]) -> bool:
    return row["drift_low"] is not None and not row["drift_low"] <= 0 <= row["drift_high"]


def encode(table: pa.Table, agreed: Agreed, name: str) -> bytes:
    """The table in the format of the file's extension; JSON also has the agreement of raters."""
    if name.endswith(".parquet"):
        return encode_table(table, 100_000)
    raters = [{"raters": list(pair), **vars(found)} for pair, found in agreed.agreement.items()]
    content = {"labelled": len(agreed.labels), "disputed": len(agreed.disputed), "agreement": raters}
    return (json.dumps({**content, "quantities": table.to_pylist()}, indent=2, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
