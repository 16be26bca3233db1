"""A run writes and prints nothing of a photograph but what its pixels show, and no secret of the process."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from maskdet.demo.faces import write_demo_tree

PLANTED = "planted-4711"
SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_API_KEY", "MASKDET_SOMETHING")
PARQUET_MAGIC = b"PAR1"


def with_metadata(image: Image.Image) -> bytes:
    """A JPEG with names, a place and comments in every field that programs use."""
    exif = Image.Exif()
    exif[0x010E] = exif[0x013B] = exif[0x8298] = f"{PLANTED} person"  # description, artist, copyright
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0), 27: PLANTED.encode()})
    exif.get_ifd(0x8769)[0x9286] = f"ASCII\0\0\0{PLANTED}".encode()  # user comment
    stream = io.BytesIO()
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{PLANTED}</x:xmpmeta>".encode()
    image.save(stream, "JPEG", quality=90, exif=exif, xmp=xmp, comment=PLANTED, icc_profile=PLANTED.encode() * 20)
    return stream.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs that carry words, whole, damaged and as PNG."""
    folder = tmp_path_factory.mktemp("privacy")
    tree = write_demo_tree(folder / "all", images_per_hour=1)
    faces = [folder / "all" / file.path for file in tree.files if file.masked is not None][:3]
    (folder / "photos").mkdir()
    for number, path in enumerate(faces):
        data = with_metadata(Image.open(path).convert("RGB"))
        assert data.count(PLANTED.encode()) >= 6
        (folder / "photos" / f"{number}.jpg").write_bytes(data)
    (folder / "photos" / "damaged.jpg").write_bytes(data[: len(data) * 3 // 4])
    text = PngImagePlugin.PngInfo()
    text.add_itxt("Author", PLANTED)
    Image.open(faces[0]).convert("RGB").save(folder / "photos" / "words.png", pnginfo=text)
    shutil.rmtree(folder / "all")
    return folder / "photos"


def everything_in(path) -> bytes:
    """A file's bytes, and those of every value where it is Parquet, whose pages are compressed."""
    data = path.read_bytes()
    if not data.startswith(PARQUET_MAGIC):
        return data
    table = pq.read_table(path, partitioning=None)
    values = itertools.chain.from_iterable(column.to_pylist() for column in table.columns)
    return b"\n".join([data, repr(table.schema).encode(), *(repr(value).encode() for value in values)])


def test_neither_metadata_nor_secrets_are_in_what_a_run_leaves_or_says(photos, tmp_path):
    command = [
        *(sys.executable, "-m", "maskdet.cli.main", "score", "--input", str(photos), "--output", str(tmp_path / "out")),
        *("--set", "failure_budget.max_ratio=1", "--json-logs", "--s3_secret_access_key=" + PLANTED),
        "--s3_access_key_id=" + PLANTED,
    ]
    secret = dict.fromkeys(SECRETS, PLANTED)
    done = subprocess.run(command, env={**os.environ, **secret}, check=False, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    failed = pq.read_table(tmp_path / "out" / "failures", partitioning=None)
    assert failed["code"].to_pylist() == ["corrupt_image"]
    assert len(written) > 8
    assert b"words.png" in b"".join(map(everything_in, written))  # or else planted words might go unnoticed
    assert [path for path in written if PLANTED.encode() in everything_in(path)] == []
    assert PLANTED.encode() not in done.stdout + done.stderr
