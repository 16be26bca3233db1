"""Tables of metadata: read in whatever form spreadsheets write them, and kept apart from an output's own columns."""

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet.errors import ConfigError, SourceError
from maskdet.tables.metadata import Metadata, read_metadata

NORTH = {"north": "Köln", "south": None, "007": "Bonn"}


@pytest.mark.parametrize(
    "data",
    [
        b"site,region\nnorth,K\xc3\xb6ln\nsouth,\n007,Bonn\n",
        b"\xef\xbb\xbfSite;Region\r\nnorth;K\xc3\xb6ln\r\nsouth;\r\n007;Bonn\r\n",
        b"Site;Region;\nnorth;K\xf6ln;\n\nsouth;;\n007;Bonn;\n",
        b'sep=|\nSITE|REGION\n" north "|"K\xc3\xb6ln"\nsouth|\n007|Bonn\n',
        "site\tregion\nnorth\tKöln\nsouth\t\n007\tBonn\n".encode("utf-16"),
        gzip.compress(b"region,site\nK\xc3\xb6ln,north\n,south\nBonn,007\n", mtime=0),
    ],
)
def test_a_table_is_read_as_a_spreadsheet_writes_it(tmp_path, data):
    (tmp_path / "sites.csv").write_bytes(data)
    found = read_metadata(str(tmp_path / "sites.csv"), "site", ["site", "region"])
    assert (found.on, dict(found.columns)) == ("site", {"region": NORTH})


def test_numbers_are_texts_as_in_an_image_list(tmp_path):
    (tmp_path / "sites.csv").write_text("site,floors,opened\n7.0,2.0,2020\n8,,1.5\n")
    assert read_metadata(str(tmp_path / "sites.csv"), "site").columns == {
        "floors": {"7": "2", "8": None},
        "opened": {"7": "2020", "8": "1.5"},
    }
    table = pa.table({"Site": [7, 8, None], "floors": [2.0, float("nan"), 3.0], "open": [True, None, False]})
    pq.write_table(table, tmp_path / "sites.PQ")
    assert read_metadata(str(tmp_path / "sites.PQ"), "site").columns == {
        "floors": {"7": "2", "8": None},
        "open": {"7": "True", "8": None},
    }


def test_a_column_is_called_as_it_is_asked_for(tmp_path):
    (tmp_path / "sites.csv").write_text("Site,Region,Floors,floors,Owner\na,cold,2,3,x\n")

    def read(*asked):
        return set(read_metadata(str(tmp_path / "sites.csv"), "site", asked).columns)

    assert read() == {"Region", "Owner"}  # it is ambiguous which floors are meant
    assert read("region") == {"region", "Owner"}
    assert read("Floors", "camera") == {"Floors", "Region", "Owner"}
    with pytest.raises(SourceError, match="one column 'FLOORS'"):
        read("FLOORS")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"place,region\na,1\n", r"a column 'site', as --on says, received \['place', 'region'\]"),
        (b"site,Site,region\na,b,1\n", None),
        (b"Site,SITE,region\na,b,1\n", "one column 'site'"),
        (b"site,region\na,1\na,2\n", "each site once, received 'a twice'"),
        (b"site,region\na,1,2\n", "line 2: 3 fields, where the header names 2 columns"),
        (b"PK\x03\x04 a workbook", "text or Parquet, received 'a workbook"),
    ],
)
def test_a_table_that_cannot_be_joined_is_refused(tmp_path, data, message):
    (tmp_path / "sites.csv").write_bytes(data)
    if message is None:
        assert read_metadata(str(tmp_path / "sites.csv"), "site").columns == {"region": {"a": "1"}}
        return
    with pytest.raises(SourceError, match=message) as refused:
        read_metadata(str(tmp_path / "sites.csv"), "site")
    assert str(refused.value).startswith(f"--metadata {tmp_path}/sites.csv")


def test_a_damaged_parquet_file_is_refused(tmp_path):
    (tmp_path / "sites.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(SourceError, match="a table in CSV or Parquet"):
        read_metadata(str(tmp_path / "sites.parquet"), "site")


def test_a_clash_stops_only_where_the_column_is_asked_for():
    columns = {"region": {"a": "1"}, "Label": {"a": "2"}}
    beside = Metadata("site", columns, frozenset({"region"})).beside(["site", "label"])
    assert (dict(beside.columns), beside.left_out) == ({"region": {"a": "1"}}, ("Label",))
    with pytest.raises(ConfigError, match="columns that the tables do not have, received 'Label'"):
        Metadata("site", columns, frozenset({"Label"})).beside(["site", "label"])
