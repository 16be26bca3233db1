"""Scoring from and to a real S3-compatible server on loopback."""

import logging
import socket

import boto3
import pytest
from moto.server import ThreadedMotoServer

from maskdet.layout import COMPLIANCE, FAILURES, PREDICTIONS
from pipelines import cli

KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
LENIENT = ("--set", "failure_budget.max_ratio=0.5")


@pytest.fixture(scope="module")
def endpoint():
    """The address of an S3 server that lives as long as this module's tests."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def flags(endpoint):
    return (
        f"--s3_endpoint_url={endpoint}",
        "--s3_access_key_id=key",
        "--s3_secret_access_key=secret",
        "--s3_region_name=us-east-1",
        *LENIENT,
    )


@pytest.fixture
def bucket(endpoint, demo):
    """A client, and a bucket that holds one site of the demo tree under `photos/`."""
    client = boto3.client("s3", endpoint_url=endpoint, **KEYS)
    client.create_bucket(Bucket="demo")
    for file in demo.tree.files:
        if file.path.startswith("demo-north/"):
            client.upload_file(str(demo.folder / file.path), "demo", f"photos/{file.path}")
    yield client
    for found in keys(client):
        client.delete_object(Bucket="demo", Key=found)
    client.delete_bucket(Bucket="demo")


def keys(client, prefix=""):
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="demo", Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", ())]


def download(client, output, folder):
    """Copy an output to a local folder and give it the form that tests read."""
    for key in keys(client, "tables/"):
        path = folder / key.removeprefix("tables/")
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file("demo", key, str(path))
    return type(output)(output.code, folder)


def rows(output, table, root):
    found = output.table(table).to_pylist()
    return [{**row, "image_uri": row["image_uri"].removeprefix(root)} for row in found]


def test_tables_in_s3_are_those_of_the_same_images_on_disk(bucket, flags, demo, score, tmp_path):
    remote = download(bucket, score("s3://demo/tables", "s3://demo/photos", flags=flags), tmp_path / "remote")
    local = score(tmp_path / "local", f"{demo.folder}/demo-north/**", flags=LENIENT)
    assert remote.code == local.code == 0
    assert remote.succeeded
    # A folder skips what has no image's extension; a glob names its files, so the note is a failure there.
    wanted = [row for row in rows(local, FAILURES, f"{demo.folder}/") if not row["image_uri"].endswith(".txt")]
    codes = {row["image_uri"]: row["code"] for row in rows(remote, FAILURES, "s3://demo/photos/")}
    assert codes == {row["image_uri"]: row["code"] for row in wanted}
    assert rows(remote, PREDICTIONS, "s3://demo/photos/") == rows(local, PREDICTIONS, f"{demo.folder}/")


def test_a_second_run_in_s3_scores_only_what_changed(bucket, flags, score, tmp_path):
    first = download(bucket, score("s3://demo/tables", "s3://demo/photos", flags=flags), tmp_path / "first")
    gone = next(key for key in keys(bucket, "photos/") if "face-" in key)
    bucket.delete_object(Bucket="demo", Key=gone)
    second = download(bucket, score("s3://demo/tables", "s3://demo/photos", flags=flags), tmp_path / "second")
    assert (second.code, second.run.shards["scored"]) == (0, 1)
    assert second.run.images.listed == first.run.images.listed - 1
    assert second.table(COMPLIANCE).num_rows >= 1
    assert f"s3://demo/{gone}" not in second.table(PREDICTIONS)["image_uri"].to_pylist()


def test_inspect_reads_an_output_in_s3(bucket, flags, score, capsys):
    score("s3://demo/tables", "s3://demo/photos", flags=flags)
    capsys.readouterr()
    assert cli.main(["inspect", "s3://demo/tables", *flags[:4]]) == 0
    shown = capsys.readouterr().out
    assert "level all" in shown
    assert "level site_hour" in shown


def test_a_bucket_that_does_not_exist_is_refused(bucket, flags, tmp_path, capfd):
    assert cli.main(["score", "--input", "s3://no-such-bucket/photos", "--output", str(tmp_path / "t"), *flags]) == 3
    assert "s3://no-such-bucket/photos" in capfd.readouterr().err
