"""Run a function on an untrusted file in a process of its own, with limits of memory and time.

A damaged or hostile file can make a parser take all memory, never end, or crash. Here that ends another process and
becomes one message. Arguments and results cross as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskdet import errors
from maskdet.cores import available_cores
from maskdet.errors import MaskdetError, ModelError
from maskdet.process_limits import MIB, set_limit


@dataclass(frozen=True)
class Limits:
    """What a process may take."""

    memory_bytes: int
    """Limit of address space, which is more than it uses."""
    seconds: int


INSPECTION = Limits(4096 * MIB, 120)
CONVERSION = Limits(24 * 1024 * MIB, 1800)
"""TensorFlow reserves 3 GiB of addresses on two cores before the first network, and more on more."""


def run_limited(task: str, argument: Mapping[str, Any], limits: Limits) -> Any:
    """Run a task in a process of its own.

    Args:
        task: module and function, ``"package.module:function"``, which takes and returns what JSON can hold.
        argument: the function's argument.
        limits: of the process.

    Raises:
        MaskdetError: what the function raised.
        ModelError: the process ended without an answer, or reached a limit.
    """
    with tempfile.TemporaryDirectory(prefix="maskdet-limited-") as folder:
        answer = Path(folder) / "answer.json"
        order = json.dumps({"task": task, "argument": argument, "limits": vars(limits), "answer": str(answer)})
        # The same modules as here, wherever this process found them.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "maskdet.model.importing.limited"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
            try:
                _, said = process.communicate(order, timeout=limits.seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                raise _refusal(f"more than {limits.seconds} s of time") from None
            finally:
                if process.poll() is None:
                    process.kill()
        if not answer.is_file():
            raise _refusal(_how_it_ended(process.returncode, said))
        return _result(json.loads(answer.read_text(encoding="utf-8")))


def _refusal(received: str) -> ModelError:
    return ModelError(
        "the model file",
        "a file that can be read within the limits of memory and time",
        received,
        "Nothing was written. Save the model again, or do not use the file.",
    )


def _how_it_ended(code: int, said: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"its reader ended by {name}" + (" (time)" if name == "SIGXCPU" else "")
    last = (said.strip().splitlines() or ["no message"])[-1]
    return f"its reader ended with code {code}: {last}"


def _result(answer: Mapping[str, Any]) -> Any:
    if "error" not in answer:
        return answer["result"]
    kind = getattr(errors, answer["error"]["kind"])
    raise kind(*answer["error"]["parts"])


def _restrict(limits: Limits) -> None:
    for what, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        # Processor time of all threads; the parent watches the wall clock.
        (resource.RLIMIT_CPU, limits.seconds * available_cores()),
        (resource.RLIMIT_CORE, 0),
    ):
        set_limit(what, most)


def _run_task(order: Mapping[str, Any]) -> dict[str, Any]:
    module, function = order["task"].split(":")
    try:
        return {"result": getattr(importlib.import_module(module), function)(order["argument"])}
    except MaskdetError as error:
        parts = [part if isinstance(part, str | int | float | None) else str(part) for part in error.args]
        return {"error": {"kind": type(error).__name__, "parts": parts}}
    except (MemoryError, RecursionError) as error:
        refused = _refusal("more memory" if isinstance(error, MemoryError) else "parts nested more deeply")
        return {"error": {"kind": "ModelError", "parts": list(refused.args)}}


def main() -> None:
    """Read what to do from standard input; leave the answer in the file that it names."""
    order = json.load(sys.stdin)
    _restrict(Limits(**order["limits"]))
    answer = _run_task(order)
    Path(order["answer"]).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
