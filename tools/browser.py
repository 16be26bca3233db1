"""Find a browser for the tests of web pages: an installed one, or a Chromium from a package of the npm registry.

    python -m tools.browser        # make browser

An installed Chromium or Chrome is used as it is; MASKDET_BROWSER gives the path of one elsewhere. Otherwise, if npm is
installed, a package that is made for servers without a browser is unpacked into build/browser, which needs no
administrator.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

PACKAGE = "@sparticuz/chromium@147.0.0"
FOLDER = Path(__file__).parents[1] / "build" / "browser"
VARIABLE = "MASKDET_BROWSER"

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome", "chromium-headless-shell")
_UNPACK = """
const fs = require("fs"), zlib = require("zlib");
const [from, to] = process.argv.slice(1);
fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)), {mode: 0o755});
"""


class Browser(NamedTuple):
    """A Chromium to drive."""

    program: Path
    libraries: Path | None
    """Folder of the libraries that come with it, if any."""

    @property
    def environment(self) -> dict[str, str | float | bool]:
        """The environment to start it in, of the type that Playwright takes."""
        known: dict[str, str | float | bool] = {**os.environ}
        if self.libraries is not None:
            known["LD_LIBRARY_PATH"] = f"{self.libraries}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")
        return known


def find_browser() -> Browser | None:
    """A browser on this machine, if there is one."""
    if named := os.environ.get(VARIABLE):
        return Browser(Path(named), None)
    for name in _PROGRAMS:
        if found := shutil.which(name):
            return Browser(Path(found), None)
    unpacked = FOLDER / "chromium"
    return Browser(unpacked, FOLDER / "lib") if unpacked.is_file() else None


def fetch_browser() -> Browser:
    """Unpack a Chromium from the npm registry into :data:`FOLDER`.

    Raises:
        SystemExit: npm or node is not installed.
        subprocess.CalledProcessError: one of them fails.
    """
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        sys.exit(f"a browser: expected Chromium on PATH, {VARIABLE}, or npm to fetch one with, received none of them")
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=FOLDER, check=True)
    (archive,) = FOLDER.glob("*.tgz")
    with tarfile.open(archive) as files:
        files.extractall(FOLDER, filter="data")
    packed = FOLDER / "package" / "bin"
    libraries = FOLDER / "libraries.tar"
    subprocess.run([node, "-e", _UNPACK, packed / "al2023.tar.br", libraries], check=True)
    with tarfile.open(libraries) as files:
        files.extractall(FOLDER, filter="data")
    # Last, and renamed in one step, so that find_browser never finds an incomplete one.
    subprocess.run([node, "-e", _UNPACK, packed / "chromium.br", FOLDER / "chromium.part"], check=True)
    (FOLDER / "chromium.part").rename(FOLDER / "chromium")
    shutil.rmtree(FOLDER / "package")
    archive.unlink()
    libraries.unlink()
    return Browser(FOLDER / "chromium", FOLDER / "lib")


def main() -> int:
    """Find or fetch a browser, and say where it is."""
    browser = find_browser() or fetch_browser()
    print(browser.program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
