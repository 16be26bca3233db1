"""A headless Chromium for tests of pages; where none is found, they are skipped with the reason."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tools.browser import VARIABLE, find_browser

DESKTOP = {"width": 1180, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextlib.contextmanager
def started_browser() -> Iterator[object]:
    """A browser, started by Playwright, whose own browsers are not needed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    browser = find_browser()
    if browser is None:
        pytest.skip(f"no Chromium on PATH, in {VARIABLE} or in build/browser; make browser fetches one")
    with sync_api.sync_playwright() as playwright:
        # Containers often lack what the sandbox asks for; the pages are our own.
        started = playwright.chromium.launch(
            executable_path=str(browser.program), args=["--no-sandbox"], env=browser.environment
        )
        try:
            yield started
        finally:
            started.close()
