"""What a command says at a terminal, and the code it ends with."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskdet import errors
from maskdet.beam.progress import Progress, ProgressState
from maskdet.cli import console
from maskdet.cli.console import describe_progress, exit_code_help, run_command, show_progress
from maskdet.errors import EXIT_CODES, ConfigError, MaskdetError

ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, MaskdetError)]


def raising(error):
    def action():
        raise error

    return action


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Commands set up logging for the whole process."""
    root, own = logging.getLogger(), logging.getLogger("maskdet")
    before = list(root.handlers), {handler: list(handler.filters) for handler in root.handlers}, root.level, own.level
    yield
    root.handlers[:], level, own_level = before[0], before[2], before[3]
    for handler, filters in before[1].items():
        handler.filters[:] = filters
    root.setLevel(level)
    own.setLevel(own_level)


class TestExitCodes:
    @pytest.mark.parametrize("code", [0, 1, 6])
    def test_the_action_s_own_code_is_the_command_s(self, code):
        assert run_command("score", lambda: code) == code

    def test_a_caller_s_mistake_is_one_message_and_its_code(self, capsys):
        message = "maskdet score: --input: expected an image, received 'nothing'. Name one.\n"
        for kind in ERRORS:
            code = run_command("score", raising(kind("--input", "an image", "nothing", "Name one.")))
            assert code == kind.exit_code
            assert capsys.readouterr().err == message, kind

    def test_every_code_is_documented(self):
        lines = exit_code_help().splitlines()
        codes = {kind.exit_code for kind in ERRORS}
        assert not [code for code in codes if f"  {code:>3}  {EXIT_CODES.get(code)}" not in lines]

    def test_help_lists_every_code_once(self):
        codes = [int(line.split()[0]) for line in exit_code_help().splitlines()[1:]]
        assert codes == sorted(EXIT_CODES)

    def test_an_interrupt_is_130(self, capsys):
        assert run_command("score", raising(KeyboardInterrupt())) == 130
        assert capsys.readouterr().err.startswith("maskdet score: interrupted. What is finished is kept")

    def test_a_reader_that_went_away_is_no_failure(self, monkeypatch):
        closed = []
        monkeypatch.setattr(sys.stderr, "close", lambda: closed.append(True), raising=False)
        assert run_command("inspect", raising(BrokenPipeError())) == 0
        assert closed

    def test_a_defect_keeps_its_traceback(self):
        with pytest.raises(ZeroDivisionError):
            run_command("score", raising(ZeroDivisionError()))


class TestProgressLine:
    @pytest.mark.parametrize(
        ("state", "elapsed_s", "text"),
        [
            (ProgressState(), 0.0, "0 of 0 images"),
            (ProgressState(listed=500), 3.0, "0 of 500 images"),
            # 100 a second; 900 to go.
            (ProgressState(listed=1000, done=100), 1.0, "100 of 1,000 images · 100 images/s · 0:09 left"),
            # 40 of the 140 were kept, so 100 in 4 s: 25 a second; 15,860 to go are 634.4 s.
            (ProgressState(16_000, 140, 40), 4.0, "140 of 16,000 images · 25 images/s · 10:34 left"),
            (ProgressState(100, 50, 50), 4.0, "50 of 100 images"),
            (ProgressState(1000, 1000, 0, 7), 10.0, "1,000 of 1,000 images · 100 images/s · 7 failed"),
            (ProgressState(1200, 1000, 0, 999), 10.0, "1,000 of 1,200 images · 100 images/s · 0:02 left · 999 failed"),
            # Listing still runs: more done than known to be listed.
            (ProgressState(10, 20), 2.0, "20 of 10 images · 10 images/s"),
            # 1 a second; two hours to go.
            (ProgressState(7_201, 1), 1.0, "1 of 7,201 images · 1 images/s · 120:00 left"),
        ],
    )  # fmt: skip
    def test_images_rate_and_time_left(self, state, elapsed_s, text):
        assert describe_progress(state, elapsed_s) == text

    def test_the_clock_starts_with_the_first_image_listed(self, monkeypatch):
        now = [100.0]
        monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
        clock = console._RunClock()
        assert clock.elapsed_s(ProgressState()) == 0.0
        now[0] = 150.0
        assert clock.elapsed_s(ProgressState(listed=10)) == 0.0
        now[0] = 152.5
        assert clock.elapsed_s(ProgressState(10, 9, 5)) == 2.5


class TestShowProgress:
    def test_counts_start_from_nothing_and_the_thread_ends(self):
        progress = Progress()
        progress.add_listed(5)
        with show_progress(progress, quiet=True):
            assert progress.state == ProgressState()
            assert any(thread.name == "progress" for thread in threading.enumerate())
        assert not any(thread.name == "progress" for thread in threading.enumerate())

    def test_the_thread_ends_with_an_error_too(self):
        with pytest.raises(ConfigError), show_progress(Progress()):
            raise ConfigError("x")
        assert not any(thread.name == "progress" for thread in threading.enumerate())

    def test_without_a_terminal_there_are_log_lines(self, monkeypatch, caplog):
        monkeypatch.setattr(console, "_LOG_INTERVAL_S", 0.01)
        progress = Progress()
        with caplog.at_level(logging.INFO, logger="maskdet"), show_progress(progress):
            progress.add_listed(3)
            wait_for(lambda: any("of 3 images" in message for message in caplog.messages))

    def test_on_a_terminal_there_is_a_live_line(self, monkeypatch, capsys):
        monkeypatch.setattr(console, "_TERMINAL_INTERVAL_S", 0.01)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        progress, said = Progress(), []
        with show_progress(progress):
            progress.add_listed(4)
            progress.add_done(1)

            def has_spoken():
                said.append(capsys.readouterr().err)
                return "1 of 4 images" in "".join(said)

            wait_for(has_spoken)

    def test_quiet_has_no_live_line(self, monkeypatch, capsys):
        monkeypatch.setattr(console, "_TERMINAL_INTERVAL_S", 0.01)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with show_progress(Progress(), quiet=True):
            threading.Event().wait(0.1)
        assert capsys.readouterr().err == ""


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("waited in vain")


def test_threads_may_count_at_once():
    progress = Progress()

    def count(_):
        for _ in range(500):
            progress.add_listed(2)
            progress.add_done(1)
            progress.add_done(1, kept=True)
            progress.add_failed(1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert progress.state == ProgressState(listed=8000, done=8000, kept=4000, failed=4000)
