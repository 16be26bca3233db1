import subprocess
import sys

CHECK = """
import sys
from maskdet.cli.lean_imports import unused_left_out
with unused_left_out():
    import maskdet.cli.score
import pyarrow
table = pyarrow.table({"a": [1, 2]}, schema=pyarrow.schema([("a", pyarrow.int64())]))
left_out = [name for name in ("pandas", "pymongo", "bson", "boto3") if name in sys.modules]
import apache_beam, boto3, pandas, pymongo
from apache_beam.io import mongodbio
print(left_out, table.to_pandas()["a"].sum(), pymongo.ASCENDING)
"""


def test_beams_unused_imports_come_only_when_asked_for():
    ran = subprocess.run([sys.executable, "-W", "error", "-c", CHECK], capture_output=True, text=True, check=True)
    assert ran.stdout == "[] 3 1\n"
    assert "bson" not in ran.stderr


def test_what_is_imported_already_stays():
    check = "import sys, bson\n" + CHECK.replace("print(left_out", 'print(left_out == ["bson"]')
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ran.stdout == "True 3 1\n"
