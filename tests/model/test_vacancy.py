"""Where a bundle may be written: what is there and is no bundle stays, whatever its manifest.json is called for."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from maskdet.cli import export, importing, train
from maskdet.errors import OutputError, StorageError
from maskdet.faces.bundle import BUILTIN_FOLDER as DETECTOR
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.export import check_vacant, replaced_whole
from maskdet.model.manifest import is_manifest
from maskdet.storage import local

BUNDLE = json.loads((BUILTIN_FOLDER / "manifest.json").read_text())


def without(name):
    return json.dumps({key: value for key, value in BUNDLE.items() if key != name})


STRANGERS = {
    "a web application": '{"name": "Photos", "start_url": "/", "icons": []}',
    "a browser extension": '{"manifest_version": 3, "name": "Photos", "version": "1.0"}',
    "a build's list": '{"files": {"main.js": "/static/main.1a2b.js"}, "entrypoints": ["static/main.1a2b.js"]}',
    "a list": '["a.png", "b.png"]',
    "nothing": "{}",
    "no JSON": "a bundle of before",
    "no text": "\udcff\udcfe",
    "one without a fingerprint": without("fingerprint"),
    "one without files": without("files"),
    "one without a version": without("schema_version"),
    "one with other hashes": json.dumps({**BUNDLE, "files": {"model.tflite": {"sha256": "abc", "size_bytes": 3}}}),
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_manifest_of_something_else_is_no_bundle(stranger, overwrite, tmp_path):
    content = STRANGERS[stranger].encode("utf-8", "surrogateescape")
    (tmp_path / "manifest.json").write_bytes(content)
    (tmp_path / "index.html").write_text("years of work")
    with pytest.raises(OutputError, match=r"or a model bundle, received .a manifest\.json that is no model bundle's"):
        check_vacant(tmp_path, overwrite=overwrite)
    assert (tmp_path / "manifest.json").read_bytes() == content


def test_a_folder_of_that_name_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(OutputError, match="something else"):
        check_vacant(tmp_path, overwrite=True)


def test_bundles_that_ship_and_those_of_other_versions_may_be_replaced(tmp_path):
    later = json.dumps({**BUNDLE, "schema_version": 9, "something_new": {}})
    shipped = [(folder / "manifest.json").read_bytes() for folder in (BUILTIN_FOLDER, DETECTOR)]
    for number, text in enumerate([*shipped, later.encode()]):
        assert is_manifest(text)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "manifest.json").write_bytes(text)
        check_vacant(folder, overwrite=True)
        with pytest.raises(OutputError, match="--overwrite"):
            check_vacant(folder, overwrite=False)


# Whoever writes below /proc, root too, is told that there is no such place.
UNWRITABLE = {
    "{}/file/m": "expected folders above it, received 'a file among them'. Name another place.",
    "{}/file/folder/m": "expected folders above it, received 'a file among them'. Name another place.",
    "/proc/maskdet-test/m": "nothing exists there",
    f"{{}}/{'m' * 300}": "OSError: File name too long",
}
COMMANDS = {
    "import": (importing.main, ["model.keras", "--classes", "mask,no_mask", "--scale", "none"]),
    "export": (export.main, ["--model", "builtin", "--formats", "litert_int8"]),
    "train": (train.main, ["--config", "compact", "--smoke"]),
}


@pytest.mark.parametrize("place", UNWRITABLE)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_made_is_told_before_anything_is_read(command, place, tmp_path, monkeypatch, capsys):
    def never(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr("maskdet.cli.importing.opened_source", never)
    monkeypatch.setattr("maskdet.model.conversion.read_manifest", never)
    monkeypatch.setattr("maskdet.training.fit.devices.prepare", never)
    (tmp_path / "file").write_text("in the way")
    output = place.format(tmp_path)
    main, flags = COMMANDS[command]
    assert main([*flags, "--output", output]) == 5
    assert capsys.readouterr().err == f"maskdet {command}: cannot write {output}: {UNWRITABLE[place]}\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_read_only_filesystem_is_told(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(local.tempfile, "mkdtemp", read_only)
    with pytest.raises(StorageError, match=f"cannot write {tmp_path}/new/m: access denied"):
        check_vacant(tmp_path / "new" / "m", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_asking_leaves_nothing_behind(tmp_path):
    (tmp_path / "kept").mkdir()
    for name in ("m", "new/m", "new/deep/m", "kept/m"):
        check_vacant(tmp_path / name, overwrite=False)
    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


def test_a_full_disk_is_an_error_of_the_storage_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(StorageError, match=f"cannot write {tmp_path}/new/m: OSError: No space left on device"),
        replaced_whole(tmp_path / "new" / "m") as building,
    ):
        Path(building, "model.tflite").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []
