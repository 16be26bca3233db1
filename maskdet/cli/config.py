"""List and show the configs that come with the package.

    maskdet config list
    maskdet config show [NAME]

`show` prints a config, so that you can copy and change it. The default, `score`, has every setting of a scoring run:
`maskdet config show score > my.yaml`.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from maskdet.cli import console
from maskdet.errors import ConfigError
from maskdet.named_configs import RECIPES, RUNNERS, list_configs

_FLAGS = {"": "--config", RUNNERS: "--runner-config", RECIPES: "train --config"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return console.run_command("config", lambda: _config(sys.argv[1:] if argv is None else argv))


def _config(argv: Sequence[str]) -> int:
    parser = console.Parser("config", __doc__)
    parser.add_argument("action", choices=["list", "show"], help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the config to show (default: score)")
    arguments = parser.parse_args(argv)
    if arguments.action == "show":
        print(_text_of(arguments.name or "score"), end="")
        return 0
    if arguments.name is not None:
        raise ConfigError("maskdet config list", "no name", arguments.name, "To read it: maskdet config show NAME.")
    for config in list_configs():
        print(f"{_FLAGS[config.folder] + ' ' + config.name:<38} {config.summary}")
    return 0


def _text_of(name: str) -> str:
    """A config's text.

    Raises:
        ConfigError: there is none of that name.
    """
    texts = {config.name: config.path for config in list_configs()}
    if name not in texts:
        close = difflib.get_close_matches(name, texts, n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else "maskdet config list names them."
        raise ConfigError("the name", "that of a config of the package", name, remedy)
    return texts[name].read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
