"""Compare two outputs, or two periods of one: what was covered, then the rates.

    maskdet diff last-month/ this-month/ --by site
    maskdet diff tables/ --before 2026-03-02..2026-03-08 --after 2026-03-09..2026-03-15 --by site,hour
    maskdet diff last-month/ this-month/ --metadata sites.csv --on site --by region
    maskdet diff old-model/ new-model/ --by camera --rate correct_rate --output changes.csv

First comes what changed in coverage: images, cameras, failures, images without a face. The rate of other cameras is
another rate. Then, for everything and for each group, comes the difference of the rates, with an interval that accounts
for clusters, and for pairs where a cluster is on both sides. P values of groups are corrected for their number.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.csv
from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.cli import console
from maskdet.cli.joined_keys import add_metadata, metadata_of
from maskdet.cli.summary import format_table
from maskdet.compliance.change import RATES
from maskdet.errors import ConfigError
from maskdet.tables.changes import ALL, Changes, Question, Side, compare
from maskdet.tables.counting import Period
from maskdet.tables.layout import Layout, encode_table

_FORMATS = (".csv", ".parquet", ".json")
_VALUES_SHOWN = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("diff", lambda: _diff(sys.argv[1:] if argv is None else argv))


def _diff(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    if arguments.output and not arguments.output.endswith(_FORMATS):
        raise ConfigError("--output", f"a file that ends in {', '.join(_FORMATS)}", arguments.output, "Name one.")
    before, after = _sides(arguments)
    by = console.names_of(arguments.by)
    question = Question(
        by=by,
        rate=arguments.rate,
        cluster=None if arguments.cluster is None else console.names_of(arguments.cluster),
        confidence=arguments.confidence,
        adjustment=arguments.adjust,
        time_zone=arguments.time_zone,
        metadata=metadata_of(arguments, by),
        small_groups=arguments.small_groups,
    )
    changes = storage.within_deadline(lambda: compare(before, after, question), before.layout.root)
    print(describe(changes))
    if arguments.output:
        storage.write_bytes(storage.normalize(arguments.output), encode(changes, arguments.output))
    return 0


def _parser() -> console.Parser:
    parser = console.Parser("diff", __doc__)
    parser.add_argument(
        "outputs", nargs="+", metavar="OUTPUT", help="two outputs of scoring runs, or one and two periods"
    )
    parser.add_argument("--by", default="", metavar="KEYS", help="groups to compare, such as site,hour")
    add_metadata(parser)
    parser.add_argument("--before", metavar="DAYS", help="a day, or FROM..TO; either may be left out: ..2026-03-08")
    parser.add_argument("--after", metavar="DAYS", help="the same of the other side")
    parser.add_argument("--rate", choices=tuple(RATES), default="any_mask_rate", help="default: %(default)s")
    parser.add_argument("--cluster", metavar="KEYS", help="keys of faces that are alike (default: the run's)")
    parser.add_argument("--adjust", choices=("holm", "benjamini-hochberg", "none"), default="holm", help="of p values")
    parser.add_argument("--confidence", type=float, default=0.95, help="of intervals (default: %(default)s)")
    parser.add_argument("--time-zone", metavar="ZONE", help="of days and hours (default: the run's)")
    parser.add_argument("--output", metavar="FILE", help="a .csv, .parquet or .json file to write")
    console.add_small_groups(parser)
    return parser


def _sides(arguments: argparse.Namespace) -> tuple[Side, Side]:
    outputs = [storage.normalize(uri) for uri in arguments.outputs]
    if not 0 < arguments.confidence < 1:
        raise ConfigError("--confidence", "a number between 0 and 1", arguments.confidence, "Example: 0.95.")
    if len(outputs) > 2 or (len(outputs) == 1 and (arguments.before is None or arguments.after is None)):
        remedy = "Example: maskdet diff tables/ --before ..2026-03-08 --after 2026-03-09.."
        raise ConfigError("OUTPUT", "two outputs, or one with --before and --after", arguments.outputs, remedy)
    periods = [None if text is None else _period(flag, text) for flag, text in _periods(arguments)]
    first, second = outputs[0], outputs[-1]
    _refuse_swapped(outputs, periods)
    return _side(first, periods[0], len(outputs) == 2), _side(second, periods[1], len(outputs) == 2)


def _refuse_swapped(outputs: Sequence[str], periods: Sequence[Period | None]) -> None:
    """Refuse, for one output, a --before later than --after: every difference would have the wrong sign."""
    before, after = periods
    if len(outputs) == 1 and before and after and before.first and after.last and before.first > after.last:
        raise ConfigError("--before", f"days before --after {after}", str(before), "Swap them.")


def _periods(arguments: argparse.Namespace) -> list[tuple[str, str | None]]:
    return [("--before", arguments.before), ("--after", arguments.after)]


def _side(output: str, period: Period | None, named: bool) -> Side:
    words = [*([output] if named else []), *([str(period)] if period is not None else [])]
    return Side(" ".join(words), Layout(output), period)


def _period(flag: str, text: str) -> Period:
    first, dots, last = text.partition("..")
    try:
        days = [date.fromisoformat(day) if day else None for day in (first, last if dots else first)]
    except ValueError as error:
        raise ConfigError(flag, "a day as 2026-01-31, or FROM..TO", text, "Check the calendar.") from error
    if days[0] is not None and days[1] is not None and days[0] > days[1]:
        raise ConfigError(flag, "a first day that is not after the last", text, "Swap them.")
    return Period(days[0], days[1])


def describe(changes: Changes) -> str:
    """What changed, in words and in a table: coverage first."""
    lines = [f"before  {changes.before.name}", f"after   {changes.after.name}", "", "coverage", *_coverage(changes)]
    if not changes.same_model:
        lines += ["", "MODELS DIFFER: a difference of rates may be one of models, not of faces", *_models(changes)]
    table = changes.table
    keys = table.column_names[: table.column_names.index("scope")]
    [method] = {*table["method"].to_pylist()[:1]}
    adjustment, rate = table["adjustment"][0].as_py(), table["rate"][0].as_py()
    clusters = " x ".join(changes.cluster) or "nothing"
    lines += [
        "",
        f"{rate}: after minus before, in percentage points",
        f"days and hours of {changes.time_zone}; clusters of {clusters}",
        f"intervals: {method}; p of groups: {adjustment}",
        format_table(_shown(table, keys)),
    ]
    if table.num_rows > 1 and keys:
        lines.append("  the first row is all groups together")
    return "\n".join(lines)


def _shown(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows as people read them, with both sides in one column."""
    rows = [
        {
            **{name: _value(row, name) for name in keys},
            "images": f"{row['images_before']:,} → {row['images_after']:,}",
            "no face": f"{_share(row['no_face_share_before'])} → {_share(row['no_face_share_after'])}",
            "rate": f"{_share(row['rate_before'])} → {_share(row['rate_after'])}",
            "difference": _points(row["difference"]),
            "interval": _interval(row["difference_low"], row["difference_high"]),
            "naive": _interval(row["difference_naive_low"], row["difference_naive_high"]),
            "p": _p(row["p"] if row["p_adjusted"] is None else row["p_adjusted"]),
            "pairs": f"{row['pairs']:,}",
        }
        for row in table.to_pylist()
    ]
    return pa.Table.from_pylist(rows)


def _value(row: Mapping[str, Any], name: str) -> str:
    """A row's value of a key, which tells all images together from those without a value."""
    if row["scope"] == ALL:
        return "(all)"
    return "(none)" if row[name] is None else str(row[name])


def _share(share: float | None) -> str:
    return "—" if share is None else f"{share:.1%}"


def _points(difference: float | None) -> str:
    return "—" if difference is None else f"{100 * difference:+.1f}"


def _interval(low: float | None, high: float | None) -> str:
    return "—" if low is None else f"{_points(low)} to {_points(high)}"


def _p(p: float | None) -> str:
    return "—" if p is None else "<.0001" if p < 1e-4 else f"{p:.4f}"


def _coverage(changes: Changes) -> list[str]:
    before, after = changes.counts
    names = {
        "images": (before.images_listed, after.images_listed),
        "failed": (before.images_failed, after.images_failed),
        "no face": (before.images_no_face, after.images_no_face),
        "faces": (before.faces, after.faces),
        "uncertain": (before.faces_uncertain, after.faces_uncertain),
    }
    lines = [f"  {name:<10}{old:>12,} {new:>12,}{_percent(old, new)}" for name, (old, new) in names.items()]
    for name, (old, new) in changes.values.items():
        lines.append(f"  {name:<10}{len(old):>12,} {len(new):>12,}{_only('gone', old - new)}{_only('new', new - old)}")
    return lines


def _percent(old: int, new: int) -> str:
    return f"   {new / old - 1:+.1%}" if old and new != old else ""


def _only(word: str, values: frozenset[str | None]) -> str:
    shown = sorted("(none)" if value is None else value for value in values)
    more = f" and {len(shown) - _VALUES_SHOWN:,} more" if len(shown) > _VALUES_SHOWN else ""
    return f"   {word}: {', '.join(shown[:_VALUES_SHOWN])}{more}" if shown else ""


def _models(changes: Changes) -> list[str]:
    return [f"  before    {changes.models[0]}", f"  after     {changes.models[1]}"]


def encode(changes: Changes, name: str) -> bytes:
    """The table in the format of the file's extension; JSON also has coverage, models and clusters."""
    if name.endswith(".parquet"):
        return encode_table(changes.table, 100_000)
    if name.endswith(".csv"):
        sink = io.BytesIO()
        pa.csv.write_csv(changes.table, sink)
        return sink.getvalue()
    return (json.dumps(_as_json(changes), indent=2, ensure_ascii=False) + "\n").encode()


def _as_json(changes: Changes) -> dict[str, Any]:
    names = (changes.before.name, changes.after.name)
    sides = zip(("before", "after"), names, changes.counts, changes.models, strict=True)
    gone_new = {
        name: {"gone": sorted(map(str, old - new)), "new": sorted(map(str, new - old))}
        for name, (old, new) in changes.values.items()
    }
    return {
        **{word: {"name": name, "counts": counts._asdict(), "model": model} for word, name, counts, model in sides},
        "keys": gone_new,
        "same_model": changes.same_model,
        "cluster": list(changes.cluster),
        "time_zone": changes.time_zone,
        "rates": changes.table.to_pylist(),
    }


if __name__ == "__main__":
    sys.exit(main())
