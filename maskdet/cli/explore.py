"""Explore an output in the browser: filter, see the faces behind a number, export.

    maskdet explore tables/ [--port 0] [--open] [--host 127.0.0.1] [--allowed-host NAME …]
                    [Beam options, for stores that need them]

Serves a page on this machine alone and prints its address, which has a token: whoever has it sees the faces. The page
loads nothing from elsewhere. Faces are read from their images when they are shown, and stored nowhere. Labels that you
correct are written to corrections.parquet in the output; the predictions stay as the model made them. Ctrl-C ends it.
Needs the extra "explore".
"""

from __future__ import annotations

import contextlib
import sys
import webbrowser
from collections.abc import Sequence

from apache_beam.io.filesystems import FileSystems

from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.cli import console
from maskdet.cli.joined_keys import add_metadata, metadata_of
from maskdet.errors import ConfigError
from maskdet.report.database import Tables
from maskdet.tables.disclosure import refuse_small_groups


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("explore", lambda: _explore(sys.argv[1:] if argv is None else argv))


def _explore(argv: Sequence[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    FileSystems.set_options(parse_beam_options(rest, own_flags=parser.flags))
    try:
        from maskdet.explore.access import LOOPBACK, Gate
        from maskdet.explore.app import serve
    except ModuleNotFoundError as error:
        remedy = "Install them: pip install 'maskdet[explore]'."
        raise ConfigError("the explorer", "the packages starlette and uvicorn", error.name, remedy) from error

    shown = "[" + arguments.host + "]" if ":" in arguments.host else arguments.host

    def ready(gate: Gate) -> None:
        print(f"Open {gate.link(shown)}\nCtrl-C ends it.", flush=True)
        if arguments.open:
            webbrowser.open(gate.link(shown))

    names = tuple(dict.fromkeys((*LOOPBACK, shown, *arguments.allowed_host)))
    if arguments.host not in ("127.0.0.1", "::1", "localhost"):
        print("maskdet explore: others on the network can reach this page, unencrypted", file=sys.stderr)
    metadata = metadata_of(arguments)
    with Tables(storage.normalize(arguments.tables), metadata) as tables, contextlib.suppress(KeyboardInterrupt):
        if tables.left_out:
            columns = ", ".join(tables.left_out)
            print(f"maskdet explore: --metadata: left out, as the tables have such columns: {columns}", file=sys.stderr)
        refuse_small_groups([tables.run], allowed=arguments.small_groups)
        serve(tables, arguments.host, arguments.port, names, ready)  # until Ctrl-C, which is the way to end it
    return 0


def _parser() -> console.Parser:
    parser = console.Parser("explore", __doc__)
    parser.add_argument("tables", help="the output of scoring runs")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: a free one)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine's own pages only)"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another name that browsers may call the server by",
    )
    add_metadata(parser)
    console.add_small_groups(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
