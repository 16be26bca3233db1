"""Where a bundle may be written: what is there and is no bundle stays, whatever its manifest.json is called for."""

from __future__ import annotations

import json

import pytest

from maskdet.errors import OutputError
from maskdet.faces.bundle import BUILTIN_FOLDER as DETECTOR
from maskdet.model.bundle import BUILTIN_FOLDER
from maskdet.model.export import check_vacant
from maskdet.model.manifest import is_manifest

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
