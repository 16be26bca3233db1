"""Which run's tables the Delta tables of an output show, and how many runs have ended since.

``_delta.json`` says so, for whoever reads the output without a library for Delta Lake: the end of a run is on any
worker.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from maskdet import storage
from maskdet.errors import NotFoundError
from maskdet.tables.layout import Layout
from maskdet.tables.run_records import latest_first


class DeltaMark(BaseModel):
    """The content of ``_delta.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    """The run whose tables the logs name."""


def write_mark(layout: Layout, run_id: str) -> None:
    """Note which run's tables were committed last.

    Raises:
        StorageError: the output cannot be written.
    """
    storage.write_bytes(layout.delta_mark, (DeltaMark(run_id=run_id).model_dump_json() + "\n").encode())


def runs_behind(layout: Layout) -> int:
    """How many runs have replaced the tables since they were last committed; 0 where there are no Delta tables.

    Raises:
        OutputError: a run's record cannot be understood.
        StorageError: the output cannot be read.
    """
    try:
        mark = DeltaMark.model_validate_json(storage.read_bytes(layout.delta_mark))
    except (NotFoundError, ValidationError):
        return 0
    behind = 0
    for run in latest_first(layout):
        if run.run_id <= mark.run_id:
            break
        behind += run.status in ("succeeded", "over_budget")
    return behind
