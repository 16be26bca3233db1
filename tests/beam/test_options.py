"""Beam's flags: passed on, with a default runner, and refused where Beam would silently drop them."""

from __future__ import annotations

from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    WorkerOptions,
)

from maskdet.beam.options import DEFAULT_RUNNER, parse_beam_options
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


class TestRunnerConfig:
    @pytest.fixture
    def config(self, tmp_path):
        def write(text):
            path = tmp_path / "runner.yaml"
            path.write_text(text)
            return str(path)

        return write

    def test_its_options_are_flags_and_the_command_line_goes_over_them(self, config):
        path = config("runner: FlinkRunner\nnum_workers: 2\nexperiments: [a, b]\nno_use_public_ips: true\n")
        options = parse_beam_options(["--num_workers=5", "--experiments=c"], path)
        assert options.view_as(StandardOptions).runner == "FlinkRunner"
        assert options.view_as(WorkerOptions).num_workers == 5
        assert options.view_as(WorkerOptions).use_public_ips is False
        assert options.view_as(DebugOptions).experiments == ["a", "b", "c"]

    def test_a_mapping_is_json(self, config):
        options = parse_beam_options([], config("environment_config: {command: /opt/boot}\n"))
        assert options.view_as(PortableOptions).environment_config == '{"command": "/opt/boot"}'

    def test_without_a_runner_it_has_the_default(self, config):
        assert parse_beam_options([], config("num_workers: 2\n")).view_as(StandardOptions).runner == DEFAULT_RUNNER

    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("runer: FlinkRunner", "received '--runer=FlinkRunner'. Did you mean --runner?"),
            ("num_workers: many", "invalid int value: 'many'"),
            ("streaming: false", "streaming: expected a value, received False"),
            ("num_workers:", "num_workers: expected a value, received None"),
            ("experiments: [a, null]", "experiments: expected a value, received None"),
            ("- runner", "Beam options as key: value, received 'list'"),
            ("", "Beam options as key: value, received 'NoneType'"),
            ("runner: [", "not readable as YAML"),
        ],
    )
    def test_a_mistake_is_refused_with_its_place(self, config, text, fragment):
        with pytest.raises(ConfigError) as refused:
            parse_beam_options([], config(text))
        assert "--runner-config" in str(refused.value)
        assert fragment in str(refused.value)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="No file is there"):
            parse_beam_options([], str(tmp_path / "none.yaml"))

    @pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("configs/runners/*.yaml")), ids=str)
    def test_every_file_of_the_repository_is_understood(self, path):
        assert parse_beam_options([], str(path)).view_as(StandardOptions).runner
