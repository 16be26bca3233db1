"""Scoring real photographs with the built-in model."""

import duckdb
import pytest

from maskdet.tables.layout import PREDICTIONS

pytestmark = [pytest.mark.data, pytest.mark.xdist_group("photographs")]

ACCURACY = """
    SELECT count(*), avg(CAST((label = 'mask') = (image_uri LIKE '%/WithMask/%') AS INTEGER))
    FROM read_parquet('{}/**/*.parquet')
"""


@pytest.fixture(scope="module")
def official_test(data_folder, score, tmp_path_factory):
    return score(tmp_path_factory.mktemp("k12") / "tables", data_folder / "k12" / "Test", template=None)


def test_the_official_test_set_is_scored_in_whole_and_labelled_as_its_folders_say(official_test):
    assert official_test.code == 0
    images = official_test.run.images
    assert (images.listed, images.scored) == (992, 992)
    with duckdb.connect() as connection:
        faces, accuracy = connection.execute(ACCURACY.format(official_test.folder / PREDICTIONS)).fetchone()
    assert faces == 992
    assert accuracy >= 0.97


@pytest.mark.parametrize(
    "flags",
    [
        ("--set", "packing.max_images=50"),
        ("--direct_num_workers=4", "--direct_running_mode=multi_threading", "--set", "packing.max_images=100"),
    ],
    ids=["shards of 50", "four workers"],
)
def test_its_tables_are_the_same_bytes_however_the_work_is_cut(official_test, data_folder, score, tmp_path, flags):
    other = score(tmp_path / "tables", data_folder / "k12" / "Test", template=None, flags=flags)
    assert other.run.shards["total"] > official_test.run.shards["total"]
    assert other.contents() == official_test.contents()


@pytest.mark.parametrize("name", ["wild", "large"])
def test_every_file_of_a_mixed_collection_is_accounted_for(data_folder, score, tmp_path, name):
    files = [path for path in (data_folder / name).rglob("*") if path.is_file()]
    run = score(tmp_path / "tables", data_folder / name, template=None).run
    assert run.images.listed == len(files)
    assert run.images.scored + run.images.failed == len(files)
    assert run.images.failed == 0
