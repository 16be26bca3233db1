import pytest

from maskdet.config import load_yaml
from maskdet.errors import ConfigError
from maskdet.preparation.settings import LabelledSource, PrepareSettings, SplitSettings


def settings(**changes):
    source = LabelledSource(input=("k12", "/abs", "s3://bucket/x", "more/*.png"), label="mask", **changes)
    return PrepareSettings(sources={"a": source})


def test_relative_locations_start_from_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MASKDET_DATA", str(tmp_path))
    source = settings(group_manifest="groups.csv").resolved().sources["a"]
    assert source.input == (f"{tmp_path}/k12", "/abs", "s3://bucket/x", f"{tmp_path}/more/*.png")
    assert (source.group_manifest, source.group_root) == (f"{tmp_path}/groups.csv", f"{tmp_path}/k12")


def test_a_root_in_the_settings_comes_before_the_variable(monkeypatch):
    monkeypatch.setenv("MASKDET_DATA", "/elsewhere")
    resolved = settings(group_root="k12/Train").model_copy(update={"root": "gs://bucket/data"}).resolved()
    assert resolved.sources["a"].input[0] == "gs://bucket/data/k12"
    assert resolved.sources["a"].group_root == "gs://bucket/data/k12/Train"


def test_one_input_may_stand_alone():
    assert LabelledSource.model_validate({"input": "x", "label": "mask"}).input == ("x",)


def test_shares_add_up_to_one():
    with pytest.raises(ValueError, match="add up to 1, received"):
        SplitSettings(train=0.8, validation=0.1, test=0.2)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("duplicates.max_bits=20", "duplicates.max_bits"),
        ("duplicates.min_corelation=1", "min_correlation"),
        ("splits.train=0.5", "add up to 1"),
        ("sources.k12.split=test", "either split"),
    ],
)
def test_a_wrong_setting_names_its_path(override, part):
    with pytest.raises(ConfigError) as error:
        load_yaml(PrepareSettings, "configs/prepare.yaml", [override])
    assert part in str(error.value)
