"""Settings: defaults, what is refused and with which message, overrides, and the resulting keys."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from maskdet import schemas
from maskdet.config import ScoreSettings, load_yaml, parse_settings, put
from maskdet.errors import ConfigError
from maskdet.images.codecs import resolve_codecs
from maskdet.model.backends import RuntimeSpec
from maskdet.resolved import ResolvedSettings
from maskdet.scoring.setup import resolve_settings
from maskdet.training.recipe import Recipe
from maskdet.video.reading import is_installed

TEMPLATE = "{site}/{camera}/{captured_at:%Y-%m-%d}/*.jpg"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "score.yaml"


def parse(tree: dict[str, Any]) -> ScoreSettings:
    return parse_settings(ScoreSettings, tree, "settings")


def refusal(tree: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(tree)
    return str(refused.value)


def test_defaults_need_no_file() -> None:
    settings = load_yaml(ScoreSettings, None)
    assert (settings.packing.max_images, settings.packing.max_bytes) == (1000, 268_435_456)
    assert settings.model.uri == "builtin"
    assert settings.compliance.all_levels == {"all": ()}
    assert settings.partition_by == ()


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "null\n", "{}\n"])
def test_an_empty_file_means_the_defaults(config: Path, text: str) -> None:
    config.write_text(text)
    assert load_yaml(ScoreSettings, config) == ScoreSettings()


def test_a_file_with_a_byte_order_mark_and_crlf_is_read(config: Path) -> None:
    config.write_bytes(b"\xef\xbb\xbfpacking:\r\n  max_images: 5\r\n")
    assert load_yaml(ScoreSettings, config).packing.max_images == 5


@pytest.mark.parametrize("folder", ["configs"])
def test_every_scoring_config_of_the_project_is_valid(folder: str) -> None:
    root = Path(__file__).parents[1] / folder
    files = [path for path in root.glob("*.yaml") if "source" in (yaml.safe_load(path.read_text()) or {})]
    assert files
    for path in files:
        load_yaml(ScoreSettings, path)


@pytest.mark.parametrize(
    ("tree", "fragment"),
    [
        ({"sorce": {}}, "unknown key 'sorce', did you mean 'source'?"),
        ({"packing": {"max_image": 5}}, "unknown key 'packing.max_image', did you mean 'max_images'?"),
        ({"packing": {"zzz": 5}}, "unknown key 'packing.zzz', known keys: max_bytes, max_images"),
        ({"faces": {"mode": "whole", "scor": 1}}, "unknown key 'faces.scor'"),
        ({"": 1}, "unknown key ''"),
    ],
)
def test_an_unknown_key_is_named_with_a_suggestion(tree: dict[str, Any], fragment: str) -> None:
    assert fragment in refusal(tree)


@pytest.mark.parametrize(
    ("tree", "path", "received"),
    [
        ({"packing": {"max_images": "many"}}, "packing.max_images", "received 'many'"),
        ({"packing": {"max_images": 0}}, "packing.max_images", "received 0"),
        ({"packing": {"max_images": 1.5}}, "packing.max_images", "received 1.5"),
        ({"packing": {"max_images": None}}, "packing.max_images", "received None"),
        ({"packing": 5}, "packing", "received 5"),
        ({"packing": [1]}, "packing", "received [1]"),
        ({"packing": None}, "packing", "received None"),
        ({"failure_budget": {"max_ratio": 1.1}}, "failure_budget.max_ratio", "received 1.1"),
        ({"failure_budget": {"max_ratio": float("nan")}}, "failure_budget.max_ratio", "received nan"),
        ({"failure_budget": {"max_images": -1}}, "failure_budget.max_images", "received -1"),
        ({"compliance": {"confidence": 1.0}}, "compliance.confidence", "received 1.0"),
        ({"model": {"precision": "int4"}}, "model.precision", "received 'int4'"),
        ({"faces": {"mode": "some"}}, "faces.mode", "received 'some'"),
        ({"source": {"kind": "zip"}}, "source.kind", "received 'zip'"),
        ({"source": {"extensions": "jpg"}}, "source.extensions", "received 'jpg'"),
        ({"source": {"keys": ["Site"]}}, "source.keys.0", "received 'Site'"),
        ({"output": 5}, "output", "received 5"),
        ({"input": 5}, "input", "received 5"),
        ({"input": [5]}, "input.0", "received 5"),
        ({1: 2}, "1", "received 1"),
    ],
)
def test_a_bad_value_is_named_by_its_path_and_shown(tree: dict[str, Any], path: str, received: str) -> None:
    text = refusal(tree)
    assert text.startswith(f"settings: {path}: ")
    assert text.endswith(received)


def test_every_mistake_is_named_at_once() -> None:
    text = refusal({"sorce": 1, "packing": {"max_images": 0}, "model": {"device": "x"}})
    assert all(fragment in text for fragment in ("'sorce'", "packing.max_images", "model.device"))


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "Europe", "utc+1"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    assert "source.timezone: " in refusal({"source": {"timezone": zone}})


def test_a_bad_template_is_refused_by_the_settings() -> None:
    assert "source.template '{site'" in refusal({"source": {"template": "{site"}})


@pytest.mark.parametrize(
    "text",
    [
        "packing: [",
        "a: b: c",
        "\t- x",
        "x: *nowhere",
        "? [a]\n: {",
        "a: 2026-13-45",
        "a: !!python/object:os.x {}",
        "\x00",
    ],
)
def test_a_file_that_is_not_yaml_is_one_clear_error(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError, match="not readable as YAML") as refused:
        load_yaml(ScoreSettings, config)
    assert str(config) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_utf8_is_one_clear_error(config: Path) -> None:
    config.write_bytes("output: Müll".encode("latin-1"))
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_yaml(ScoreSettings, config)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just text", "5"])
def test_a_file_without_sections_is_refused(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError, match="sections of key: value"):
        load_yaml(ScoreSettings, config)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No file is there"):
        load_yaml(ScoreSettings, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="not readable"):
        load_yaml(ScoreSettings, tmp_path)


def test_overrides_are_yaml_and_the_last_one_holds(config: Path) -> None:
    config.write_text("packing: {max_images: 5, max_bytes: 7}\n")
    overrides = [
        "packing.max_images=6",
        " packing.max_images =8",
        "source.keys=[site, camera]",
        "imaging.jpeg_draft=false",
        "source.template='{area}/*.jpg'",
        "model.precision=null",
        "output=a=b",
    ]
    settings = load_yaml(ScoreSettings, config, overrides)
    assert (settings.packing.max_images, settings.packing.max_bytes) == (8, 7)
    assert settings.source.key_names == ("area", "site", "camera")
    assert settings.imaging.jpeg_draft is False
    assert settings.model.precision is None
    assert settings.output == "a=b"


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("packing.max_images", "section.key=value"),
        ("", "section.key=value"),
        ("source.template={site}/*.jpg", "in quotes of its own"),
        ("packing.max_images=[1", "in quotes of its own"),
        ("output=2026-13-45", "in quotes of its own"),
        ("packing.max_images.deeper.still=1", "to be a section"),
        ("packing.max_imges=1", "did you mean 'max_images'?"),
        ("=1", "unknown key ''"),
    ],
)
def test_a_bad_override_is_refused(config: Path, override: str, fragment: str) -> None:
    config.write_text("packing: {max_images: 5}\n")
    with pytest.raises(ConfigError) as refused:
        load_yaml(ScoreSettings, config, [override])
    assert fragment in str(refused.value)


def test_put_makes_sections_and_keeps_their_neighbours() -> None:
    tree: dict[str, Any] = {"a": {"x": 1}}
    put(tree, "a.y", 2)
    put(tree, "b.c.d", 3)
    put(tree, "e", 4)
    assert tree == {"a": {"x": 1, "y": 2}, "b": {"c": {"d": 3}}, "e": 4}


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ScoreSettings().output = "x"


def test_one_input_may_stand_without_a_list() -> None:
    assert parse({"input": "a"}).input == ("a",)
    assert parse({"input": ["a", "b"]}).input == ("a", "b")


def test_keys_are_the_templates_then_the_manifests() -> None:
    settings = parse({"source": {"template": TEMPLATE, "keys": ["shift"]}})
    assert settings.source.key_names == ("site", "camera", "shift")
    assert settings.partition_by == ("site", "camera", "shift", "date")


@pytest.mark.parametrize(
    ("source", "partition_by", "expected"),
    [
        ({"template": "{site}/*.jpg"}, None, ("site",)),
        ({"template": TEMPLATE}, [], ()),
        ({"template": TEMPLATE}, ["date", "hour"], ("date", "hour")),
        ({"keys": ["site"], "captured_at_column": "t"}, None, ("site", "date")),
        ({}, None, ()),
    ],
)
def test_partitions_default_to_every_key_and_the_date(
    source: dict[str, Any], partition_by: list[str] | None, expected: tuple[str, ...]
) -> None:
    assert parse({"source": source, "tables": {"partition_by": partition_by}}).partition_by == expected


@pytest.mark.parametrize(
    ("tree", "fragment"),
    [
        ({"compliance": {"levels": {"x": ["site"]}}}, "compliance.levels.x: 'site' is no key"),
        ({"tables": {"partition_by": ["date"]}}, "tables.partition_by: 'date' is no key"),
        ({"source": {"keys": ["site"]}, "compliance": {"levels": {"x": ["hour"]}}}, "'hour' is no key"),
        ({"source": {"template": "{site}/*", "keys": ["site"]}}, "'site' is named twice"),
        ({"source": {"keys": ["site", "site"]}}, "'site' is named twice"),
        ({"source": {"keys": ["date"]}}, "derived from the capture time"),
        ({"source": {"template": "{hour}/*"}}, "derived from the capture time"),
        ({"source": {"keys": ["a"]}, "tables": {"partition_by": ["a", "a"]}}, "a key is named twice"),
        ({"source": {"keys": ["a"]}, "compliance": {"levels": {"x": ["a", "a"]}}}, "names a key twice"),
        ({"source": {"keys": ["a"]}, "compliance": {"levels": {"all": ["a"]}}}, "choose another name"),
        ({"compliance": {"levels": {"Bad Level": []}}}, "compliance.levels"),
    ],
)
def test_keys_that_cannot_work_are_refused(tree: dict[str, Any], fragment: str) -> None:
    assert fragment in refusal(tree)


def test_no_key_may_be_named_like_a_column_of_a_table() -> None:
    tables = (schemas.predictions_schema(), schemas.failures_schema(), schemas.compliance_schema())
    names = {name for table in tables for name in table.names}
    assert names <= schemas.RESERVED_NAMES
    for name in sorted(names):
        assert f"the key {name!r} is the name of a column" in refusal({"source": {"keys": [name]}})


@pytest.mark.parametrize(
    ("model", "fragment"),
    [
        ({"no_mask_below": 0.6, "mask_from": 0.4}, "lies above"),
    ],
)
def test_a_model_that_cannot_run_is_refused(model: dict[str, Any], fragment: str) -> None:
    assert fragment in refusal({"model": model})


def test_equal_thresholds_leave_no_uncertain_band() -> None:
    assert parse({"model": {"no_mask_below": 0.5, "mask_from": 0.5}}).model.mask_from == 0.5


CHOSEN = {
    "imaging": {"codecs": "pillow"},
    "faces": {"mode": "whole"},
    "model": {"backend": "litert", "precision": "int8"},
}
CHOSEN["video"] = {"mode": "skip"}
CHOSEN["compliance"] = {"cluster": (), "time_zone": "UTC"}
GIVEN = {"imaging": {"max_pixels": 5}, "faces": {"min_face_px": 32}, "input": "photos", "output": "tables"}


class TestResolved:
    @pytest.mark.parametrize(
        ("section", "open_choice"),
        [
            ("imaging", {"codecs": "auto"}),
            ("faces", {"mode": "auto"}),
            ("model", {"backend": "litert", "precision": None}),
            ("model", {"precision": "int8"}),
            ("faces", {}),
            ("compliance", {}),
            ("video", {}),
        ],
    )
    def test_resolved_settings_leave_nothing_open(self, section, open_choice):
        ResolvedSettings.model_validate(CHOSEN)
        with pytest.raises(ValidationError):
            ResolvedSettings.model_validate({**CHOSEN, section: open_choice})

    def test_resolving_keeps_what_was_given_and_changes_nothing_twice(self):
        manifest = types.SimpleNamespace(architecture="reference_cnn", faces=None)
        given = parse(GIVEN)
        found = resolve_settings(given, manifest, RuntimeSpec())
        expected = given.model_dump()
        expected["imaging"]["codecs"] = resolve_codecs("auto")
        expected["faces"]["mode"] = "whole"
        expected["video"]["mode"] = "score" if is_installed() else "skip"
        expected["model"] |= {"backend": "litert", "precision": "int8"}
        expected["compliance"].update(cluster=given.cluster_keys, time_zone=given.source.timezone)
        assert found.model_dump() == expected
        assert resolve_settings(found, manifest, RuntimeSpec()) == found


class TestClusters:
    def clusters(self, **tree):
        return parse(tree).cluster_keys

    def test_by_default_faces_of_one_camera_and_hour_are_alike(self):
        assert self.clusters(source={"template": TEMPLATE}) == ("site", "camera", "date", "hour")
        assert self.clusters(source={"keys": ["site"]}) == ("site",)
        assert self.clusters(source={"captured_at_column": "t"}) == ("date", "hour")
        assert self.clusters() == ()

    def test_they_can_be_named_and_left_out(self):
        source = {"keys": ["site", "person"], "captured_at_column": "t"}
        assert self.clusters(source=source, compliance={"cluster": ["person", "week"]}) == ("person", "week")
        assert self.clusters(source=source, compliance={"cluster": []}) == ()

    def test_weeks_and_months_are_keys_of_groups_and_not_of_folders(self):
        source = {"template": TEMPLATE}
        levels = {"w": ["site", "week"], "m": ["month", "weekday"]}
        assert parse({"source": source, "compliance": {"levels": levels}}).compliance.all_levels["w"] == (
            "site",
            "week",
        )
        refused = refusal({"source": source, "tables": {"partition_by": ["week"]}})
        assert "tables.partition_by: 'week' is no key" in refused
        assert "compliance.cluster: 'person' is no key" in refusal({"compliance": {"cluster": ["person"]}})

    def test_the_time_zone_of_groups_is_the_source_s_unless_named(self):
        assert parse({"source": {"timezone": "Asia/Tokyo"}}).compliance_time_zone == "Asia/Tokyo"
        assert parse({"compliance": {"time_zone": "Europe/Berlin"}}).compliance_time_zone == "Europe/Berlin"
        assert "no time zone" in refusal({"compliance": {"time_zone": "Berlin"}})


def test_a_missing_field_is_named_with_where_it_is_described():
    with pytest.raises(ConfigError) as caught:
        parse_settings(Recipe, {"name": "mine"}, "mine.yaml")
    assert "architecture: expected a value, received none; the reference of settings says what it is" in str(
        caught.value
    )
    assert "maskdet config show NAME" in str(caught.value)
