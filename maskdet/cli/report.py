"""Write one page about an output, for people.

    maskdet report tables/ [--output report.html] [--by site,camera] [--where site=north …]
                   [--since 2026-03-02] [--until 2026-03-08] [--title "Masks in March"] [--faces 12] [--excel FILE]
                   [Beam options, for stores that need them]

The page is one self-contained HTML file that loads nothing from any other host. It has the rate with its interval in
words, what it rests on, days, sites and cameras, what changed, what was not seen, what failed, and the model in brief.
Intervals treat faces of one camera and hour as alike. The same tables give the same page. It shows nobody unless you
say --faces: then some faces of each label are read from their images at that moment and added to the page. Needs the
extra "explore".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import date

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.cli import console
from maskdet.cli.joined_keys import add_metadata, metadata_of
from maskdet.errors import ConfigError
from maskdet.report.compliance_page import write_report
from maskdet.report.database import Selection

REPORT_FILE = "report.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("report", lambda: _report(sys.argv[1:] if argv is None else argv))


def _report(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    output = storage.normalize(arguments.output or storage.join(arguments.tables, REPORT_FILE))
    since, until = arguments.since, arguments.until
    if since is not None and until is not None and since > until:
        raise ConfigError("--since", f"a day that is not after --until {until}", str(since), "Swap them.")
    selection = Selection(console.keys_of(arguments.where), since, until)
    by = console.names_of(arguments.by) if arguments.by else None
    excel = None if arguments.excel is None else storage.normalize(arguments.excel)
    written = write_report(
        arguments.tables,
        output,
        selection,
        by=by,
        title=arguments.title,
        faces=arguments.faces,
        excel=excel,
        small_groups=arguments.small_groups,
        metadata=metadata_of(arguments, (*(by or ()), *selection.keys)),
    )
    print(f"{written.sentence}\nreport: {output} ({written.size_bytes / 1000:,.0f} kB)")
    if excel is not None:
        print(f"excel:  {excel}")
    return 0


def day_of(text: str) -> date:
    """A day as written in a flag."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a day such as 2026-03-02, received {text!r}") from None


def _parser() -> console.Parser:
    parser = console.Parser("report", __doc__)
    parser.add_argument("tables", help="the output of scoring runs")
    parser.add_argument("--output", metavar="FILE", help="the page to write (default: report.html in the output)")
    parser.add_argument("--by", metavar="KEYS", help="one or two keys to group by (default: the first two)")
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only such images; may be given repeatedly"
    )
    add_metadata(parser)
    parser.add_argument("--since", type=day_of, metavar="DAY", help="only images taken on this day or later")
    parser.add_argument("--until", type=day_of, metavar="DAY", help="only images taken on this day or earlier")
    parser.add_argument("--title", help="the page's title (default: Who wears a mask)")
    console.add_small_groups(parser)
    parser.add_argument("--faces", type=int, default=0, metavar="N", help="show N faces of each label (default: none)")
    parser.add_argument("--excel", metavar="FILE", help="write the figures as an Excel file, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
