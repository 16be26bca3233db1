"""Beam's flags: passed on, with a default runner, and refused where Beam would only drop them."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)

from maskdet.beam_options import DEFAULT_RUNNER, parse_beam_options
from maskdet.errors import ConfigError


def test_without_flags_the_runner_needs_no_download() -> None:
    assert DEFAULT_RUNNER == "FnApiRunner"
    assert parse_beam_options([]).view_as(StandardOptions).runner == DEFAULT_RUNNER


@pytest.mark.parametrize("arguments", [["--runner=DirectRunner"], ["--runner", "DirectRunner"]])
def test_a_runner_that_is_named_is_kept(arguments: list[str]) -> None:
    assert parse_beam_options(arguments).view_as(StandardOptions).runner == "DirectRunner"


def test_flags_reach_the_options_that_know_them() -> None:
    options = parse_beam_options(
        ["--direct_num_workers=4", "--direct_running_mode", "multi_threading", "--num_workers=3", "--experiments=a,b"]
    )
    assert isinstance(options, PipelineOptions)
    assert options.view_as(DirectOptions).direct_num_workers == 4
    assert options.view_as(DirectOptions).direct_running_mode == "multi_threading"
    assert options.view_as(WorkerOptions).num_workers == 3
    assert options.view_as(DebugOptions).experiments == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--runer=DirectRunner"], "received '--runer=DirectRunner'. Did you mean --runner?"),
        (["--num-workers", "3"], "Did you mean --num_workers?"),
        (["--runne=DirectRunner"], "Did you mean --runner?"),
        (["--qqqqqqqqqqqqqqqq"], "See --help"),
        (["images/"], "received 'images/'"),
        (["--runner=DirectRunner", "stray"], "received 'stray'"),
        (["--num_workers=many"], "invalid int value: 'many'"),
        (["--runner"], "expected one argument"),
        (["--type_check_strictness=maybe"], "invalid choice: 'maybe'"),
        (["--streaming=perhaps"], "--streaming"),
    ],
)
def test_a_flag_that_beam_does_not_know_or_cannot_read_is_refused(arguments: list[str], fragment: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_beam_options(arguments)
    assert fragment in str(refused.value)
