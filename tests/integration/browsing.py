"""A headless Chromium for tests of pages, which are skipped with the reason where none is found."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from maskdet.explore import app
from maskdet.explore.access import LOOPBACK
from maskdet.report.database import Tables
from tools.browser import VARIABLE, find_browser

DESKTOP = {"width": 1180, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextlib.contextmanager
def started_browser() -> Iterator[object]:
    """A browser that Playwright starts; Playwright's own browsers are not needed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    browser = find_browser()
    if browser is None:
        pytest.skip(f"no Chromium on PATH, in {VARIABLE} or in build/browser; make browser fetches one")
    with sync_api.sync_playwright() as playwright:
        # Containers often lack what the sandbox needs; the pages are our own.
        started = playwright.chromium.launch(
            executable_path=str(browser.program), args=["--no-sandbox"], env=browser.environment
        )
        try:
            yield started
        finally:
            started.close()


def explorer_link(folder: str) -> str:
    """Serve the explorer of an output until the tests end; its address, with the token."""
    found, there = [], threading.Event()

    def ready(gate: Any) -> None:
        found.append(gate.link())
        there.set()

    arguments = (Tables(folder), "127.0.0.1", 0, LOOPBACK, ready)
    threading.Thread(target=app.serve, args=arguments, daemon=True).start()
    assert there.wait(60)
    return found[0]


def settle(page: Any, shown: str = "#rate b", **patience: float) -> None:
    """Wait until the explorer has no request under way and shows something; ``patience`` as for :func:`until`."""
    busy = "document.body.hasAttribute('aria-busy')"
    until(page, f"{busy} === false && document.querySelector('{shown}')", **patience)


@contextlib.contextmanager
def explorer_visits(browser: Any, link: str, settle: Callable[[Any], None]) -> Iterator[Callable[..., Any]]:
    """A function that opens the explorer: ``visit(query, **options of the context)`` returns a page that has settled.

    A page records its ``faults`` (errors of scripts, texts of dialogs) and the ``hosts`` that it contacts.
    """
    with contextlib.ExitStack() as contexts:

        def visit(query: str = "", **options: Any) -> Any:
            context = browser.new_context(**{"viewport": DESKTOP, **options})
            contexts.callback(context.close)
            page = context.new_page()
            page.faults, page.hosts = [], set()
            page.on("pageerror", lambda error: page.faults.append(str(error)))
            page.on("request", lambda request: page.hosts.add(re.sub(r"^(\w+://[^/]+).*", r"\1", request.url)))
            page.on("dialog", lambda dialog: page.faults.append(dialog.message))
            page.goto(link)
            if query:
                page.goto(link.split("?", maxsplit=1)[0] + query)
            settle(page)
            return page

        yield visit


def until(page: Any, condition: str, patience_s: float = 10.0) -> None:
    """Wait for a condition in JavaScript; the explorer's content policy forbids Playwright's own way."""
    for _ in range(round(patience_s / 0.05)):
        if page.evaluate(f"Boolean({condition})"):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{condition}: {page.locator('#error').inner_text()} {page.faults}")
