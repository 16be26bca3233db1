"""Take the screenshot of a report that README shows, made from the demo's drawn faces: docs/images/report.png.

python -m tools.picture_report [--output FILE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from maskdet.cli.main import main as maskdet
from tools.browser import fetch_browser, find_browser

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "report.png"
_COLOURS = 64


def main() -> int:
    """Score the demo, write its report, and take the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        photos, tables = f"{folder}/photos", f"{folder}/tables"
        for command in (
            ["demo", "--output", photos],
            ["score", "--config", "demo", "--input", photos, "--output", tables, "--quiet"],
            ["report", tables, "--title", "Masks at the demo's sites (drawn faces)"],
        ):
            if code := maskdet(command):
                return code
        take(f"file://{tables}/report.html", output)
    print(f"{output}: {output.stat().st_size / 1000:.0f} kB")
    return 0


def take(page: str, output: Path) -> None:
    """Take a screenshot of the top of a page, as a PNG with few colours."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    browser = find_browser() or fetch_browser()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(browser.program), args=["--no-sandbox"], env=browser.environment
        )
        shown = started.new_page(viewport={"width": 1000, "height": 940}, device_scale_factor=1.5)
        shown.goto(page)
        shown.screenshot(path=str(output))
        started.close()
    Image.open(output).convert("RGB").quantize(_COLOURS).save(output, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
