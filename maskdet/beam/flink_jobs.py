"""A run's job on a Flink cluster, through Flink's REST API: what it is doing, and cancelling it."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

_TIMEOUT_S = 10.0
_ENDED = frozenset({"FINISHED", "FAILED", "CANCELED"})
# Our steps are labelled VerbNoun; Flink chains several into one of its own, and names that after all of them.
_STEP = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+")
_FLINK_WORDS = frozenset(
    {"MapPartition", "FlatMap", "GroupReduce", "GroupCombine", "DataSource", "DataSink", "DiscardingOutput", "ToKeyed"}
)
_MOST_STEPS = 3


def url_of(master: str) -> str | None:
    """The REST address of a Flink master as given to Beam; ``None`` for ``[local]`` and ``[auto]``."""
    if master.startswith("["):
        return None
    return (master if "://" in master else f"http://{master}").rstrip("/")


def describe_job(master: str, name: str) -> str:
    """What a job is doing, in words.

    Args:
        master: of Flink, as ``host:port``.
        name: of the job.
    """
    url = url_of(master)
    if url is None:
        return f"Flink at {master} cannot be asked"
    try:
        found = [job for job in _get(f"{url}/jobs/overview")["jobs"] if job["name"] == name]
        if not found:
            return f"Flink at {master} has no such job yet: it is being handed over, which takes some 20 s"
        latest = max(found, key=lambda job: job["start-time"])
        steps = _get(f"{url}/jobs/{latest['jid']}")["vertices"]
        return f"{latest['state'].lower()} on Flink: {_describe_steps(steps)}"
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "reason", None) or error
        return f"Flink at {master} does not answer: {' '.join(str(reason).split())}"


def cancel_job(master: str, name: str) -> None:
    """Cancel a job by its name, if Flink can be reached.

    Beam's job server, asked to cancel a batch job, stops waiting for it and leaves it running.

    Raises:
        OSError: Flink does not answer.
        LookupError: several jobs have that name.
    """
    url = url_of(master)
    if url is None:
        return
    jobs = _get(f"{url}/jobs/overview")["jobs"]
    found = [job["jid"] for job in jobs if job["name"] == name and job["state"] not in _ENDED]
    if len(found) > 1:
        raise LookupError(f"{len(found)} jobs on {url} are named {name!r}")
    for job in found:
        request = urllib.request.Request(f"{url}/jobs/{job}?mode=cancel", method="PATCH")
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()


def _describe_steps(steps: Sequence[Mapping[str, str]]) -> str:
    finished = sum(step["status"] == "FINISHED" for step in steps)
    text = f"{finished} of {len(steps)} steps finished"
    running = [step["name"] for step in steps if step["status"] in ("RUNNING", "INITIALIZING", "DEPLOYING")]
    if not running:
        return text if finished == len(steps) else f"{text}, none running: it waits for slots"
    names = dict.fromkeys(name for step in running for name in _STEP.findall(step) if name not in _FLINK_WORDS)
    return f"{text}, now {', '.join(list(names)[:_MOST_STEPS]) or running[0]}"


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
        return json.load(answer)
