"""The store for latency measurements speaks S3 well enough for the project's own client."""

import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems

from benchmarks.slow_store import answer
from maskdet import storage
from maskdet.beam.options import parse_beam_options
from maskdet.errors import NotFoundError


def test_listings_come_in_pages_of_a_thousand():
    objects = {f"{index:05d}.jpg": bytes(index % 7) for index in range(2001)}
    tags = dict.fromkeys(objects, "tag")
    seen, token, pages = [], "", 0
    while True:
        status, body = answer(f"/images?list-type=2&prefix=&continuation-token={token}", objects, tags)
        page = ET.fromstring(body)
        assert status == 200
        seen += [(found.findtext("Key"), int(found.findtext("Size"))) for found in page.iter("Contents")]
        pages += 1
        token = page.findtext("NextContinuationToken")
        if page.findtext("IsTruncated") == "false":
            break
    assert pages == 3
    assert token is None
    assert seen == [(key, len(data)) for key, data in objects.items()]


def test_the_projects_client_lists_and_reads(tmp_path):
    for name, data in {"a.jpg": b"one", "b c.jpg": b"two" * 50_000}.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-m", "benchmarks.slow_store", "--folder", str(tmp_path), "--delay-ms", "120"]
    before = FileSystems._pipeline_options
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        keys = ["--s3_access_key_id=key", "--s3_secret_access_key=secret", "--s3_region_name=us-east-1"]
        FileSystems.set_options(parse_beam_options([f"--s3_endpoint_url={server.stdout.readline().strip()}", *keys]))
        try:
            listed = {file.uri: file.size_bytes for file in storage.list_folder("s3://images")}
            assert listed == {"s3://images/a.jpg": 3, "s3://images/b c.jpg": 150_000}
            began_s = time.monotonic()
            assert storage.read_bytes("s3://images/b c.jpg") == b"two" * 50_000
            assert time.monotonic() - began_s >= 0.12
            assert storage.read_bytes("s3://images/a.jpg") == b"one"
            with pytest.raises(NotFoundError):
                storage.read_bytes("s3://images/none.jpg")
        finally:
            FileSystems.set_options(before)
