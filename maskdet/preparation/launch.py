"""From settings to a preparation that is ready to start, with every check possible before the first image is read."""

from __future__ import annotations

import functools
from typing import NamedTuple

from maskdet import storage
from maskdet.errors import ConfigError, SourceError
from maskdet.inputs.listing import ListTask, check_input, input_tasks
from maskdet.preparation.measuring import read_groups
from maskdet.preparation.settings import LabelledSource, PrepareSettings


class SourceTask(NamedTuple):
    """A part of a source that one worker lists."""

    source: str
    task: ListTask


def check_preparation(settings: PrepareSettings) -> tuple[PrepareSettings, list[SourceTask]]:
    """Check settings, inputs and group manifests, without touching the output.

    Returns:
        The settings with absolute locations, and the listing to do.

    Raises:
        ConfigError: a setting is missing or contradicts another.
        SourceError: an input or group manifest is missing, empty or not as promised.
        StorageError: a store does not answer.
    """
    if not settings.output:
        raise ConfigError("--output", "a folder or prefix", "nothing", "Say where to write the manifest.")
    if not settings.sources:
        raise ConfigError(
            "sources", "at least one named source", "none", "maskdet config show prepare shows an example."
        )
    resolved = settings.resolved().model_copy(update={"output": storage.normalize(settings.output)})
    return resolved, [task for name, source in resolved.sources.items() for task in _tasks_of(name, source)]


def _tasks_of(name: str, source: LabelledSource) -> list[SourceTask]:
    place = f"sources.{name}"
    try:
        tasks = input_tasks(source.input, source.listing)
        if source.listing.keys and not all(task.kind == "image_list" for task in tasks):
            remedy = "Folders and globs take them from label or labels, split or splits."
            raise ConfigError(f"{place}.label_column, split_column", "a manifest as input", source.input, remedy)
        for task in tasks:
            storage.within_deadline(functools.partial(check_input, task, source.listing), task.uri)
        read_groups(source)
    except (ConfigError, SourceError) as error:
        # The listing names another command's flag.
        raise type(error)(
            error.what.replace("--input", f"{place}.input"), error.expected, error.received, error.remedy
        ) from error
    return [SourceTask(name, task) for task in tasks]
