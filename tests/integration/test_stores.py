"""gs:// and s3://: real servers on loopback are listed, read, scored, written, resumed."""

import ast
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskdet import storage
from maskdet.cli import main
from maskdet.errors import NotFoundError
from maskdet.tables.layout import COMPLIANCE, FAILURES, PREDICTIONS

LENIENT = ("--set", "failure_budget.max_ratio=0.5")
ODD_KEYS = [
    "a b.jpg",
    "straße 日本.jpg",
    "[1].jpg",
    "100%.jpg",
    "a%20b.jpg",
    "#1.jpg",
    "what?.jpg",
    "a+b&c=d.jpg",
    "*.jpg",
]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_object_of_any_name_is_written_listed_found_and_deleted(store, key):
    uri = store.uri(f"odd/{key}")
    storage.write_bytes(uri, b"old")
    before = storage.stat(uri)
    storage.write_bytes(uri, b"new")
    assert store.server.get(store.bucket, f"odd/{key}") == b"new"
    assert storage.read_bytes(uri) == b"new"
    assert storage.exists(uri)
    with storage.open_binary(uri) as stream:
        assert (stream.seek(1), stream.read(1), stream.read()) == (1, b"e", b"w")
    [listed] = storage.list_folder(store.uri("odd"))
    assert listed == storage.stat(uri)
    assert (listed.uri, listed.size_bytes) == (uri, 3)
    # Of one size, and perhaps within one second.
    assert listed.version != before.version
    storage.delete([uri, uri])
    assert not storage.exists(uri)


def test_what_is_not_there_is_not_found_and_lists_nothing(store):
    for uri in (store.uri("none"), f"{store.server.scheme}://no-such-bucket/none"):
        for action in (storage.read_bytes, storage.stat, lambda uri: storage.open_binary(uri).__enter__()):
            with pytest.raises(NotFoundError):
                action(uri)
        assert not storage.exists(uri)
        assert list(storage.list_folder(uri)) == []
        storage.delete([uri])


def test_prefixes_are_folders_and_globs_match(store):
    for key in ("p/1.jpg", "p/deep/2.jpg", "pq/3.jpg", "p/deep/", "p/empty/"):
        store.server.put(store.bucket, key, b"" if key.endswith("/") else b"x")
    assert sorted(file.uri for file in storage.list_folder(store.uri("p"))) == [
        store.uri("p/1.jpg"),
        store.uri("p/deep/2.jpg"),
    ]
    assert [file.uri for file in storage.list_matching(store.uri("*/3.jpg"))] == [store.uri("pq/3.jpg")]
    assert len(list(storage.list_matching(store.uri("**.jpg")))) == 3


def test_an_object_is_written_only_over_what_was_expected(store):
    uri = store.uri("conditional")
    assert not storage.write_if(uri, b"old", b"new")
    assert storage.write_if(uri, None, b"one")
    assert not storage.write_if(uri, None, b"two")
    assert not storage.write_if(uri, b"other", b"two")
    assert storage.write_if(uri, b"one", b"two")
    assert storage.read_bytes(uri) == b"two"


def test_one_of_many_writers_of_one_object_wins(store):
    uri = store.uri("raced")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: storage.write_if(uri, None, b"%d" % number), range(8)))
    assert sum(won) == 1
    assert storage.read_bytes(uri) == b"%d" % won.index(True)


def test_an_empty_object_is_read_and_written(store):
    storage.write_bytes(store.uri("empty"), b"")
    assert storage.read_bytes(store.uri("empty")) == b""
    with storage.open_binary(store.uri("empty")) as stream:
        assert stream.read() == b""


def test_an_object_larger_than_one_upload_or_piece_arrives_whole(store):
    data = bytes(range(256)) * (36 * 1024)  # 9 MiB
    storage.write_bytes(store.uri("large"), data)
    assert storage.read_bytes(store.uri("large")) == data
    with storage.open_binary(store.uri("large")) as stream:
        assert stream.read() == data


def rows(output, table, root):
    found = output.table(table).to_pylist()
    return [{**row, "image_uri": row["image_uri"].removeprefix(root)} for row in found]


def test_tables_in_a_store_are_those_of_the_same_images_on_disk(store, demo, score, tmp_path):
    remote = store.download(score(store.tables, store.photos, flags=(*store.flags, *LENIENT)), tmp_path / "remote")
    local = score(tmp_path / "local", f"{demo.folder}/demo-north/**", flags=LENIENT)
    assert remote.code == local.code == 0
    assert remote.succeeded
    root, local_root = f"{store.photos}/", f"{demo.folder}/"
    # A folder's files without an image's extension are skipped; a glob names its files, so the note is a failure there.
    wanted = [row for row in rows(local, FAILURES, local_root) if not row["image_uri"].endswith(".txt")]
    codes = {row["image_uri"]: row["code"] for row in rows(remote, FAILURES, root)}
    assert codes == {row["image_uri"]: row["code"] for row in wanted}
    assert rows(remote, PREDICTIONS, root) == rows(local, PREDICTIONS, local_root)


def test_a_second_run_in_a_store_scores_only_what_changed(store, score, demo, tmp_path):
    south = [file.path for file in demo.tree.files if file.path.startswith("demo-south/")]
    for path in south:
        store.server.put(store.bucket, f"photos/{path}", (demo.folder / path).read_bytes())
    photos = store.uri("photos")
    first = store.download(score(store.tables, photos, flags=store.flags), tmp_path / "first")
    assert (first.code, first.run.shards["scored"]) == (0, 2)
    store.server.delete(store.bucket, f"photos/{south[0]}")
    mirror = ("--set", "tables.on_gone=remove")
    second = store.download(score(store.tables, photos, flags=(*store.flags, *mirror)), tmp_path / "second")
    assert (second.code, second.run.images_scored_now) == (0, 0)
    assert second.run.images.listed == first.run.images.listed - 1
    assert second.table(COMPLIANCE).num_rows >= 1
    assert store.uri(f"photos/{south[0]}") not in second.table(PREDICTIONS)["image_uri"].to_pylist()
    written = [
        found.target for found in store.proxy.requests(store.server.write) if "tables/predictions/" in found.target
    ]
    assert len(written) == 2 + 1


def test_delta_tables_in_a_store_hold_the_rows_of_its_files(store, score, tmp_path):
    if store.server.scheme == "gs":
        pytest.skip("delta-rs asks the emulator for what it does not serve: XML listings")
    scored = store.download(score(store.tables, store.sound, flags=store.flags), tmp_path / "scored")
    variables = {"AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    variables |= {"AWS_ENDPOINT_URL": store.proxy.url, "AWS_REGION": "us-east-1"}

    def in_its_own_process(*arguments):  # delta-rs keeps Python's lock while it waits for the proxy, a thread here
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    for changes in ("+2 −0", "+0 −0"):
        said = in_its_own_process("-m", "maskdet.cli.main", "delta", store.tables, *store.flags)
        assert said.startswith(f"predictions  version 0: {changes} files, {store.tables}/_files/predictions\n")
    table = f"{store.tables}/_files/predictions"
    script = f"from deltalake import DeltaTable; rows = DeltaTable({table!r}).to_pyarrow_table().to_pydict()"
    seen = in_its_own_process("-c", f"{script}; print(rows['image_uri'])")
    assert sorted(ast.literal_eval(seen)) == sorted(scored.table(PREDICTIONS)["image_uri"].to_pylist())


def test_inspect_reads_an_output_in_a_store(store, score, capsys):
    score(store.tables, store.sound, flags=store.flags)
    capsys.readouterr()
    assert main.main(["inspect", store.tables, *store.flags]) == 0
    shown = capsys.readouterr().out
    assert "level all" in shown
    assert "level site_hour" in shown


def test_a_bucket_that_does_not_exist_is_refused(store, tmp_path, capfd):
    photos = f"{store.server.scheme}://no-such-bucket/photos"
    assert main.main(["score", "--input", photos, "--output", str(tmp_path / "t"), *store.flags]) == 3
    assert photos in capfd.readouterr().err
