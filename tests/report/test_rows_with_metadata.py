"""A row looked up by its place has the keys that metadata add, just as in the views of all rows."""

from maskdet.report.database import FILE, ROW, Tables
from maskdet.tables.metadata import Metadata
from tests.outputs import face, write_output

REGIONS = Metadata("site", {"region": {"north": "cold", "None": "a site of this name"}})


def test_a_row_without_the_key_has_none_of_the_metadata(tmp_path):
    sites = ("north", None, "None", "elsewhere")
    images = [(f"/{number}.jpg", (site, "gate"), None, [face("mask")]) for number, site in enumerate(sites)]
    write_output(tmp_path / "tables", images)
    expected = {"north": "cold", None: None, "None": "a site of this name", "elsewhere": None}
    with Tables(str(tmp_path / "tables"), REGIONS) as tables:
        places = tables.rows(f"SELECT {FILE}, {ROW}, site, region FROM faces")
        assert {site: region for *_, site, region in places} == expected
        for file, number, site, _ in places:
            row = tables.row("faces", tables.file_number("faces", file), number)
            assert (row["site"], row["region"]) == (site, expected[site])
