"""Servers and runners, not written in Python, that tests start; built or downloaded into build/tools once."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build" / "tools"
JOB_SERVER_POM = Path(__file__).parent / "settings" / "pom.xml"
# All jars in one: the job server sends its jars to Flink with each job, and each takes a tenth of a second.
JOB_SERVER_JAR = Path("merged", "job-server.jar")
FAKE_GCS_VERSION = "v1.56.1"
FLINK_VERSION = "1.19.3"
BEAM_VERSION = f"v{version('apache-beam')}"


def ends_with_input(*command: object) -> list[str]:
    """Wrap a command in a shell that ends it when the shell's input closes.

    The input closes when the process that holds its other end does, however that ends.
    """
    return ["sh", "-c", '"$@" & cat; kill $!', "sh", *map(str, command)]


def listens(port: int) -> bool:
    """Whether something listens on a port of the loopback address."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class NotInstallableError(Exception):
    """A program cannot be installed on this machine; the text says why."""


def install_fake_gcs_server() -> Path:
    """The pinned fake-gcs-server; built in 1 to 3 minutes on two cores.

    Raises:
        NotInstallableError: there is no Go, or the build failed.
    """
    return _go_program("fake-gcs-server", "github.com/fsouza/fake-gcs-server", FAKE_GCS_VERSION)


def install_beam_boot() -> Path:
    """The program that starts Python SDK workers in Beam's containers, in the version of the installed Beam.

    Raises:
        NotInstallableError: there is no Go, or the build failed.
    """
    return _go_program("beam-boot", "github.com/apache/beam/sdks/v2/python/container", BEAM_VERSION)


def install_prism() -> Path:
    """Beam's own portable runner, in the version of the installed Beam.

    Raises:
        NotInstallableError: there is no Go, or the build failed.
    """
    return _go_program("prism", "github.com/apache/beam/sdks/v2/go/cmd/prism", BEAM_VERSION)


def install_flink() -> Path:
    """The folder with the jars that job and task managers need, taken from Flink's package for Python (230 MB).

    Raises:
        NotInstallableError: the package cannot be downloaded.
    """

    def fetch(folder: Path) -> None:
        # Without dependencies, since only the package's jars are needed, not what PyFlink needs to run.
        command = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        _run(sys.executable, *command, "--dest", folder, f"apache-flink-libraries=={FLINK_VERSION}")
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            for member in packed:
                name = Path(member.name)
                if name.match("deps/lib/*.jar") and not name.name.startswith("flink-table"):
                    packed.extract(_renamed(member, name.name), folder, filter="data")
        archive.unlink()

    return _kept(f"flink-{FLINK_VERSION}", fetch)


def install_job_server() -> Path:
    """The folder with the jars of Beam's job server for Flink (110 MB), and all of them merged in `JOB_SERVER_JAR`.

    Raises:
        NotInstallableError: Maven is not installed, or cannot download them.
    """
    digest = hashlib.sha256(JOB_SERVER_POM.read_bytes()).hexdigest()[:8]

    def fetch(folder: Path) -> None:
        maven = _needed("mvn", "the job server's jars are fetched with Maven")
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        _run(maven, "--batch-mode", "--quiet", "--file", JOB_SERVER_POM, *goal)
        jars = sorted(folder.glob("*.jar"))
        (folder / JOB_SERVER_JAR).parent.mkdir()
        _merge(jars, folder / JOB_SERVER_JAR)

    return _kept(f"flink-job-server-{digest}-merged", fetch)


def find_java() -> str:
    """The Java that runs Flink.

    Raises:
        NotInstallableError: there is none.
    """
    return _needed("java", "Flink runs on Java 11 or 17")


def _go_program(name: str, package: str, version: str) -> Path:
    def build(folder: Path) -> None:
        go = _needed("go", f"{name} is built with Go")
        # In a folder outside any Go module.
        _run(go, "install", f"{package}@{version}", cwd=folder, env={**os.environ, "GOBIN": str(folder)})
        next(folder.iterdir()).rename(folder / name)

    return _kept(f"{name}-{version}", build) / name


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """A folder below :data:`TOOLS`, made completely or not at all, and only once, even if several processes want it.

    Raises:
        NotInstallableError: it cannot be made, by this process or by one that this process waited for.
    """
    kept = TOOLS / name
    if kept.is_dir():
        return kept
    TOOLS.mkdir(parents=True, exist_ok=True)
    with _alone(TOOLS / f"{name}.lock") as note:
        if not kept.is_dir():
            try:
                _make(kept, make)
            except NotInstallableError as error:
                note.write(str(error))
                raise
    return kept


def _make(kept: Path, make: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        made = Path(scratch) / kept.name
        made.mkdir()
        make(made)
        made.rename(kept)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[TextIO]:
    """Keep other processes out while the body runs; in the yielded file it may tell those that wait why it failed.

    Raises:
        NotInstallableError: this process waited, and the one before it failed.
    """
    with lock.open("a+", encoding="utf-8") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(note, fcntl.LOCK_EX)
            note.seek(0)
            if failed := note.read():
                raise NotInstallableError(failed) from None
        note.truncate(0)
        yield note


def _merge(jars: Sequence[Path], target: Path) -> None:
    """Merge jars into one: the first file of a name is kept, and lists of service providers are joined."""
    services: dict[str, list[bytes]] = {}
    seen: set[str] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as merged:
        for jar in jars:
            with zipfile.ZipFile(jar) as packed:
                for name in packed.namelist():
                    if name.startswith("META-INF/services/") and not name.endswith("/"):
                        services.setdefault(name, []).append(packed.read(name))
                    elif name not in seen and not re.search(r"/$|^META-INF/(MANIFEST\.MF|[^/]+\.(SF|RSA|DSA))$", name):
                        seen.add(name)
                        merged.writestr(name, packed.read(name))
        for name, parts in services.items():
            merged.writestr(name, b"\n".join(parts))


def _needed(program: str, reason: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise NotInstallableError(f"{reason}; {program} is not on PATH")
    return found


def _run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.sub(r"\s+", " ", done.stderr or done.stdout)[-300:]
        raise NotInstallableError(f"{Path(words[0]).name} {' '.join(words[1:4])} …: {said}")


def _renamed(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    return member.replace(name=name, deep=False)


def main() -> None:
    """Build or download all of them; the exit code is 1 if one cannot be installed."""
    missing = 0
    for install in (install_fake_gcs_server, install_prism, install_beam_boot, install_flink, install_job_server):
        try:
            print(install())
        except NotInstallableError as error:
            print(error, file=sys.stderr)
            missing += 1
    sys.exit(int(missing > 0))


if __name__ == "__main__":
    main()
