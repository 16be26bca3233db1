"""A standalone Flink cluster on this machine: job manager, two task managers, Beam's job server, Python SDK workers.

python -m tools.flink.cluster up      start it in build/flink (`make flink-up`)
python -m tools.flink.cluster down    stop all that was started there (`make flink-down`)
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tools.flink.programs import (
    JOB_SERVER_JAR,
    ROOT,
    NotInstallableError,
    find_java,
    install_beam_boot,
    install_flink,
    install_job_server,
    listens,
)

FOLDER = ROOT / "build" / "flink"
# Beam's boot program, as configs/runners/flink.yaml names it: in the folder in which a task manager runs.
BOOT = "./boot"
SETTINGS = Path(__file__).parent / "settings" / "config.yaml"
_START_S = 120.0
_STOP_S = 10.0
# Options that Flink's own scripts pass to Java 17.
_OPENED = ("lang", "net", "io", "nio", "lang.reflect", "text", "time", "util", "util.concurrent")
_OPENS = [
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
    "--add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED",
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
]


class ClusterError(Exception):
    """The cluster cannot be started; the text says why."""


@dataclasses.dataclass(frozen=True)
class Ports:
    """Ports on which the cluster listens, at the loopback address."""

    rest: int = 8081
    job: int = 8099
    artifact: int = 8098
    rpc: int = 6123

    @classmethod
    def free(cls) -> Ports:
        """Ports that nothing listens on."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in dataclasses.fields(cls)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            return cls(*(int(each.getsockname()[1]) for each in sockets))


@dataclasses.dataclass(frozen=True)
class Process:
    """A process that leads a session of its own, to which all processes that it starts belong."""

    name: str
    pid: int
    started: int
    """When it started, in clock ticks since the machine's start: a pid may be reused, but not with the same start."""


class FlinkCluster:
    """A cluster whose processes, logs and settings are in one folder.

    Args:
        folder: the cluster's folder; made if it does not exist.
        ports: where it listens.
        cores: for each task manager, the core for it and its Python workers; ``None``: any. Default: two task managers.
    """

    def __init__(self, folder: Path, ports: Ports, cores: Sequence[int | None] = (None, None)) -> None:
        self.folder = folder
        self.ports = ports
        self.url = f"http://127.0.0.1:{ports.rest}"
        self._cores = tuple(cores)
        self._java = find_java()
        flink = sorted(install_flink().glob("*.jar"))
        job_server = install_job_server()
        # Flink's distribution already has Flink and a logger, so only the other jars of the job server are added.
        beam = [jar for jar in sorted(job_server.glob("*.jar")) if not jar.name.startswith(("flink-", "slf4j-"))]
        self._flink_path = os.pathsep.join(map(str, [*flink, *beam]))
        self._server_path = str(job_server / JOB_SERVER_JAR)
        self._boot = install_beam_boot()
        self._children: list[subprocess.Popen[bytes]] = []

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags that `maskdet score` needs, besides configs/runners/flink.yaml, to find this cluster."""
        return (
            f"--job_endpoint=localhost:{self.ports.job}",
            f"--artifact_endpoint=localhost:{self.ports.artifact}",
            f"--flink_master=localhost:{self.ports.rest}",
        )

    def start(self) -> None:
        """Start the cluster and wait until it accepts jobs.

        Raises:
            ClusterError: a port is taken, or a process ended; the text says which, and where its log is.
        """
        stop(self.folder)
        self._prepare()
        self._start_job_manager()
        for number in range(len(self._cores)):
            self.start_task_manager(number)
        self._start_job_server()
        self.await_task_managers(len(self._cores))
        self._await("job server", lambda: listens(self.ports.job))

    def start_task_manager(self, number: int) -> None:
        """Start the task manager of a number from 0, in place of one that died; it joins the cluster within seconds."""
        # The program that starts workers outlives a killed task manager, and restarts them a few times.
        _end([process for process in _read(self.folder) if process.name == f"task-manager-{number}"])
        core = self._cores[number]
        pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
        main = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        self._start(f"task-manager-{number}", [*pinned, *self._flink(f"task-manager-{number}", main, "768m")])

    def task_manager(self, number: int) -> int:
        """The pid of a task manager."""
        return self._process(f"task-manager-{number}").pid

    def workers(self, number: int) -> list[int]:
        """The pids of the Python processes that a task manager started and that are still alive, the latest last."""
        session = _session(self._process(f"task-manager-{number}"))
        return sorted((pid for pid in session if b"sdk_worker_main" in _command_line(pid)), key=_started)

    def rest(self, path: str) -> Any:
        """The answer of Flink's REST API."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)

    def cancel_jobs(self) -> None:
        """Cancel every job that has not ended."""
        for job in self.rest("/jobs/overview")["jobs"]:
            if job["state"] not in ("FINISHED", "CANCELED", "FAILED"):
                request = urllib.request.Request(f"{self.url}/jobs/{job['jid']}?mode=cancel", method="PATCH")
                urllib.request.urlopen(request, timeout=10).close()

    def await_task_managers(self, count: int) -> None:
        """Wait until this many have joined and all their slots are free.

        Raises:
            ClusterError: they do not join.
        """

        def there() -> bool:
            try:
                found = self.rest("/overview")
            except OSError:
                return False
            return bool(found["taskmanagers"] == count and found["slots-available"] == found["slots-total"] > 0)

        self._await(f"{count} task managers", there)

    def stop(self) -> None:
        """End everything that was started; logs stay."""
        stop(self.folder)
        for child in self._children:
            child.wait()

    def _prepare(self) -> None:
        for name, port in dataclasses.asdict(self.ports).items():
            if listens(port):
                raise ClusterError(f"port {port} ({name}) is taken; end what listens there (`make flink-down`)")
        for name in ("conf", "logs", "tmp", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        added = {
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": self.ports.rpc,
            "rest.address": "localhost",
            "rest.port": self.ports.rest,
            "io.tmp.dirs": str(self.folder / "tmp"),
            "blob.storage.directory": str(self.folder / "tmp"),
            "web.upload.dir": str(self.folder / "tmp"),
        }
        lines = [f"{name}: {json.dumps(value)}" for name, value in added.items()]
        text = "\n".join([SETTINGS.read_text(encoding="utf-8"), *lines, ""])
        (self.folder / "conf" / "config.yaml").write_text(text, encoding="utf-8")
        shutil.copyfile(SETTINGS.with_name("log4j.properties"), self.folder / "conf" / "log4j.properties")

    def _start_job_manager(self) -> None:
        main = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        self._start("job-manager", self._flink("job-manager", main, "768m"))

    def _start_job_server(self) -> None:
        flags = {
            "flink-master": f"localhost:{self.ports.rest}",
            "job-host": "localhost",
            "job-port": self.ports.job,
            "artifact-port": self.ports.artifact,
            "expansion-port": 0,
            "artifacts-dir": self.folder / "tmp" / "artifacts",
        }
        main = "org.apache.beam.runners.flink.FlinkJobServerDriver"
        options = [f"-Djava.io.tmpdir={self.folder / 'tmp'}", "-Dorg.slf4j.simpleLogger.showDateTime=true"]
        command = [self._java, "-Xmx512m", *_OPENS, *options, "-cp", self._server_path]
        self._start("job-server", [*command, main, *(f"--{name}={value}" for name, value in flags.items())])

    def _flink(self, name: str, main: str, heap: str) -> list[str]:
        properties = {
            "log.file": self.folder / "logs" / f"{name}.log",
            "log4j.configurationFile": (self.folder / "conf" / "log4j.properties").as_uri(),
            "java.io.tmpdir": self.folder / "tmp",
        }
        options = [f"-D{key}={value}" for key, value in properties.items()]
        command = [self._java, f"-Xmx{heap}", "-XX:+UseSerialGC", *_OPENS, *options, "-cp", self._flink_path]
        return [*command, main, "--configDir", str(self.folder / "conf")]

    def _start(self, name: str, command: Sequence[str]) -> None:
        # Workers run the Python of this environment, in which maskdet is installed.
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT": "1",
            "NO_GCE_CHECK": "true",
        }
        # Each has its own folder, because their workers write files of the same names where they start.
        folder = self.folder / "work" / name
        folder.mkdir(exist_ok=True)
        (folder / BOOT).unlink(missing_ok=True)
        (folder / BOOT).symlink_to(self._boot)
        with open(self.folder / "logs" / f"{name}.out", "ab") as log:
            started = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._children.append(started)
        others = [process for process in _read(self.folder) if process.name != name]
        _write(self.folder, [*others, Process(name, started.pid, _started(started.pid))])

    def _process(self, name: str) -> Process:
        return next(process for process in _read(self.folder) if process.name == name)

    def _await(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_S
        while not ready():
            ended = [process.name for process in _read(self.folder) if not _is_alive(process)]
            if ended or time.monotonic() > deadline:
                reason = f"{ended[0]} ended" if ended else f"no {what} within {_START_S:g} s"
                raise ClusterError(f"Flink did not start: {reason}; see {self.folder / 'logs'}")
            time.sleep(0.2)


@contextlib.contextmanager
def running(cluster: FlinkCluster) -> Iterator[FlinkCluster]:
    """Run a cluster while the body runs; it is stopped afterwards, even if this process is killed."""
    command = [sys.executable, __file__, "watch", "--folder", str(cluster.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def stop(folder: Path) -> None:
    """End all processes that were started for a cluster, and what they started."""
    _end(_read(folder))
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    _write(folder, [])


def _end(processes: Sequence[Process]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_S
        sent: set[int] = set()
        while (alive := {pid for process in processes for pid in _session(process)}) and time.monotonic() < deadline:
            for pid in alive - sent:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            sent |= alive
            time.sleep(0.1)


def _read(folder: Path) -> list[Process]:
    try:
        return [Process(**fields) for fields in json.loads((folder / "processes.json").read_text())]
    except FileNotFoundError:
        return []


def _write(folder: Path, processes: Sequence[Process]) -> None:
    if not folder.is_dir():
        return
    path = folder / "processes.json"
    path.with_suffix(".new").write_text(json.dumps([dataclasses.asdict(process) for process in processes], indent=1))
    path.with_suffix(".new").replace(path)


def _session(process: Process) -> list[int]:
    """The pids in a process's session, including its own; none if the pid now belongs to another process."""
    found = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    fields = {pid: _stat(pid) for pid in found}
    leader = fields.get(process.pid, ())
    if leader and int(leader[19]) != process.started:
        return []
    return [pid for pid, values in fields.items() if values and int(values[3]) == process.pid and values[0] != "Z"]


def _stat(pid: int) -> tuple[str, ...]:
    """Fields of /proc/PID/stat from the third on: state, parent, group, session, …; none if the process is gone."""
    try:
        return tuple(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split())
    except (FileNotFoundError, ProcessLookupError):
        return ()


def _started(pid: int) -> int:
    return int(_stat(pid)[19])


def _is_alive(process: Process) -> bool:
    return process.pid in _session(process)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _up(folder: Path) -> None:
    cluster = FlinkCluster(folder, Ports())
    try:
        cluster.start()
    except BaseException:
        cluster.stop()
        raise
    print(
        f"Flink is up: {cluster.url} (web interface), localhost:{cluster.ports.job} (job server); logs in {folder}/logs"
    )
    print("Score on it:  maskdet score --runner-config flink …;  stop it:  make flink-down")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("up", "down", "watch"), help="watch: stop once standard input ends")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="the cluster's folder (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.action == "up":
        try:
            _up(arguments.folder)
        except (ClusterError, NotInstallableError) as error:
            sys.exit(str(error))
        return
    if arguments.action == "watch":
        sys.stdin.read()
    stop(arguments.folder)


if __name__ == "__main__":
    main()
