"""What all commands share at a terminal: error messages with exit codes, logging, and the progress line."""

from __future__ import annotations

import argparse
import difflib
import functools
import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

from maskdet.background import running_beside
from maskdet.beam.progress import Progress, ProgressState
from maskdet.errors import EXIT_CODES, ConfigError, MaskdetError, Terminated

_LOGGER = logging.getLogger("maskdet")
# One line for each shard, for workers' logs; at a terminal the progress line says it better.
_SHARD_LOGGER = "maskdet.shards"
_TERMINAL_INTERVAL_S = 0.2
_LOG_INTERVAL_S = 30.0
_MIN_RATE_S = 0.5  # before that, a rate is mostly noise


class Parser(argparse.ArgumentParser):
    """A command's parser: full flag names only, its module's docstring as help, suggestions for mistyped flags.

    Args:
        command: the command's name.
        description: the module's docstring.
    """

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(
            prog=command if " " in command else f"maskdet {command}",
            description=description,
            epilog=exit_code_help(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._given: list[str] = []

    @property
    def flags(self) -> list[str]:
        """Every flag that the command knows."""
        return list(self._option_string_actions)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the base class; keeps the arguments for :meth:`error`."""
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and end with exit code 2; suggest a flag that may have been mistyped."""
        unknown = [word.split("=")[0] for word in self._given if word.startswith("--")]
        close = [difflib.get_close_matches(flag, self.flags, n=1) for flag in unknown if flag not in self.flags]
        meant = [found for matches in close for found in matches]
        super().error(f"{message}; did you mean {meant[0]}?" if meant else message)


def add_overwrite_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of all commands that write a bundle; see :func:`maskdet.model.export.check_vacant`."""
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already at --output")


def add_set_flag(parser: argparse.ArgumentParser, text: str = "change one setting; wins over the config") -> None:
    """The flag of all commands that have settings: ``--set KEY=VALUE``, which may be given repeatedly."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)


def names_of(text: str) -> tuple[str, ...]:
    """Names that a flag lists, separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def keys_of(conditions: Sequence[str]) -> dict[str, tuple[str | None, ...]]:
    """Conditions ``key=value`` in the form of a selection; several for one key are alternatives.

    Raises:
        ConfigError: one is not of that form.
    """
    found: dict[str, tuple[str | None, ...]] = {}
    for condition in conditions:
        name, sign, value = condition.partition("=")
        if not sign:
            raise ConfigError("--where", "key=value", condition, "For example: --where site=north")
        found[name] = (*found.get(name, ()), value or None)
    return found


def add_small_groups(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that count rows anew; see :mod:`maskdet.tables.disclosure`."""
    parser.add_argument(
        "--small-groups",
        action="store_true",
        help="show small groups and exact counts even where the tables hide or round them (privacy)",
    )


def run_command(name: str, action: Callable[[], int]) -> int:
    """Run a command; a user's mistake becomes one message on stderr and an exit code."""
    set_up_logging()
    try:
        with _sigterm_as_interrupt():
            return action()
    except MaskdetError as error:
        print(f"maskdet {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        how = "terminated" if isinstance(error, Terminated) else "interrupted"
        print(
            f"maskdet {name}: {how}. What is finished is kept; run the same command again to continue", file=sys.stderr
        )
        if error.args:
            print(_describe_kept(*error.args), file=sys.stderr)
        return Terminated.exit_code if isinstance(error, Terminated) else 130
    except BrokenPipeError:  # the reader of a pipe has closed it
        sys.stderr.close()
        return 0


def _describe_kept(output: str, run_id: str) -> str:
    from maskdet.cli import summary  # not for `maskdet demo`, which starts without Arrow
    from maskdet.tables.layout import Layout

    return summary.describe_kept(Layout(output), run_id)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Raise :class:`maskdet.errors.Terminated` on SIGTERM while the body runs; a second one ends the process."""
    if threading.current_thread() is not threading.main_thread():  # where Python cannot handle signals
        yield
        return

    def terminate(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def set_up_logging() -> None:
    """Log warnings, and maskdet's own messages, to stderr; leave out what the command says better itself."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _LOGGER.setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_worth_saying)
        handler.addFilter(_not_of_a_shard)


def log_json() -> None:
    """Log one JSON object per line instead, and one for each shard finished in this process."""
    for handler in logging.getLogger().handlers:
        handler.removeFilter(_not_of_a_shard)
        handler.setFormatter(_JsonFormatter())


class _JsonFormatter(logging.Formatter):
    """A record as one line of JSON; a message that is itself a JSON object, such as a shard's, adds its fields."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        fields = json.loads(message) if record.name == _SHARD_LOGGER else {"message": message}
        trace = {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        time_text = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": time_text, "level": record.levelname, "logger": record.name, **fields, **trace})


def _not_of_a_shard(record: logging.LogRecord) -> bool:
    return record.name != _SHARD_LOGGER


def _worth_saying(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    # Beam logs the traceback of errors in steps; for a user's mistake, the command prints one message instead.
    error = record.exc_info[1] if record.exc_info else None
    repeated = "maskdet.errors." in text or isinstance(error, MaskdetError | KeyboardInterrupt)
    # Beam logs a traceback at each retry of a store and, when imported, that its optional BigQuery client is missing.
    return not repeated and not text.startswith(("Retry with exponential backoff", "apitools not found"))


def exit_code_help() -> str:
    """The exit codes, one per line, for ``--help``."""
    return "exit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())


@contextmanager
def show_progress(progress: Progress, *, quiet: bool = False) -> Iterator[None]:
    """Show a run's progress while the body runs: a live line on a terminal, a log line now and then elsewhere."""
    progress.reset()
    show = _log_lines if quiet or not sys.stderr.isatty() else _live_line
    with running_beside(functools.partial(show, progress), "progress"):
        yield


def describe_progress(state: ProgressState, elapsed_s: float) -> str:
    """Progress in words: images done, rate, time left. Images that are kept do not count in the rate."""
    scored = state.done - state.kept
    rate = scored / elapsed_s if elapsed_s >= _MIN_RATE_S else 0.0
    text = f"{state.done:,} of {state.listed:,} images"
    if rate > 0:
        text += f" · {rate:,.0f} images/s"
    if rate > 0 and state.listed > state.done:
        minutes, seconds = divmod(round((state.listed - state.done) / rate), 60)
        text += f" · {minutes}:{seconds:02d} left"
    if state.failed:
        text += f" · {state.failed:,} failed"
    return text


def _live_line(progress: Progress, stop: threading.Event) -> None:
    from tqdm import tqdm  # its import reads version files of packages, which log lines do not need

    clock = _RunClock()
    bar_format = "{percentage:3.0f}% {bar:24} {desc}"
    with tqdm(total=1, bar_format=bar_format, leave=False, file=sys.stderr, mininterval=0) as bar:
        while not stop.wait(_TERMINAL_INTERVAL_S):
            state = progress.state
            bar.total, bar.n = max(state.listed, 1), min(state.done, state.listed)
            bar.set_description_str(describe_progress(state, clock.elapsed_s(state)), refresh=True)


def _log_lines(progress: Progress, stop: threading.Event) -> None:
    clock = _RunClock()
    said_s = time.monotonic()
    while not stop.wait(_TERMINAL_INTERVAL_S):
        elapsed_s = clock.elapsed_s(progress.state)
        if time.monotonic() - said_s >= _LOG_INTERVAL_S:
            said_s = time.monotonic()
            _LOGGER.info(describe_progress(progress.state, elapsed_s))


class _RunClock:
    """Seconds since the first image was listed, so that starting the runner and workers does not lower the rate."""

    def __init__(self) -> None:
        self._started: float | None = None

    def elapsed_s(self, state: ProgressState) -> float:
        if self._started is None and state.listed:
            self._started = time.monotonic()
        return 0.0 if self._started is None else time.monotonic() - self._started
