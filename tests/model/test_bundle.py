"""Finding, fetching and verifying bundles: changed, missing and misplaced files are all refused."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

from maskdet.errors import AccessDeniedError, ModelError, StorageError
from maskdet.model import bundle as bundle_module
from maskdet.model.bundle import (
    BUILTIN_FOLDER,
    CACHE_VARIABLE,
    file_sha256,
    open_bundle,
    read_manifest,
    resolve,
)
from maskdet.model.manifest import BundleFile, InputSpec, Manifest, TrainingData

FILES = [
    "golden.npz",
    "model.keras",
    "model.tflite",
    "model_float.tflite",
    "saved_model/fingerprint.pb",
    "saved_model/saved_model.pb",
    "saved_model/variables/variables.data-00000-of-00001",
    "saved_model/variables/variables.index",
]


def golden_bytes():
    stream = io.BytesIO()
    np.savez(stream, inputs=np.zeros((2, 4, 4, 3), np.uint8), litert_int8=np.array([0.25, 0.5], np.float32))
    return stream.getvalue()


def contents():
    """Files of a bundle whose model file is not a model; verification does not look inside."""
    return {name: golden_bytes() if name == "golden.npz" else f"content of {name}".encode() for name in FILES}


def manifest_of(files, **changes):
    described = {name: BundleFile(size_bytes=len(d), sha256=hashlib.sha256(d).hexdigest()) for name, d in files.items()}
    fields = {
        "name": "fake",
        "architecture": "none",
        "input": InputSpec(height=4, width=4),
        "training_data": TrainingData(description="none", images=0, fingerprint=""),
        "files": described,
    }
    return Manifest(**{**fields, **changes}).sealed()


def write_bundle(folder: Path, files=None, manifest=None):
    files = contents() if files is None else files
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text((manifest or manifest_of(files)).to_json())
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "bundle")


class TestLocal:
    def test_a_whole_bundle_opens_where_it_lies(self, folder):
        for uri in (str(folder), f"{folder}/", f"file://{folder}"):
            bundle = open_bundle(uri)
            assert bundle.folder == folder
            assert bundle.manifest == manifest_of(contents()) == read_manifest(uri)

    @pytest.mark.parametrize("harm", ["changed", "longer", "empty", "missing", "a folder"])
    def test_each_file_must_be_there_as_it_was(self, folder, harm):
        for name in FILES:
            path = folder / name
            whole = path.read_bytes()
            data = bytearray(whole)
            if harm == "changed":
                data[len(data) // 2] ^= 1
            path.unlink()
            if harm == "a folder":
                path.mkdir()
            elif harm != "missing":
                path.write_bytes({"changed": bytes(data), "longer": bytes(data) + b"\0", "empty": b""}[harm])
            with pytest.raises(ModelError, match=re.escape(name)) as caught:
                open_bundle(str(folder))
            assert str(folder) in str(caught.value)
            assert caught.value.exit_code == 4
            if harm == "a folder":
                path.rmdir()
            path.write_bytes(whole)

    def test_no_byte_of_the_manifest_may_change_what_it_says(self, folder):
        path = folder / "manifest.json"
        data, original = path.read_bytes(), read_manifest(str(folder))
        accepted = 0
        for i in range(len(data)):
            path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
            try:
                assert read_manifest(str(folder)) == original
                accepted += 1
            except ModelError:
                pass
        assert accepted == 0

    @pytest.mark.parametrize("text", ["", "{}", "[]", "not json", "\x00", '{"schema_version": 1}'])
    def test_a_damaged_manifest_is_refused(self, folder, text):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(ModelError, match=re.escape(f"{folder}/manifest.json: ")):
            open_bundle(str(folder))

    @pytest.mark.parametrize("version", [0, 2, "1.0"])
    def test_another_schema_version_is_refused_by_name(self, folder, version):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version}))
        with pytest.raises(ModelError, match="schema_version"):
            open_bundle(str(folder))

    def test_a_manifest_of_a_later_form_is_refused(self, folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "new_key": 1}))
        with pytest.raises(ModelError, match="new_key"):
            open_bundle(str(folder))

    @pytest.mark.parametrize("place", ["nowhere", "empty"])
    def test_no_bundle_is_said_with_the_way_out(self, tmp_path, place):
        (tmp_path / "empty").mkdir()
        with pytest.raises(ModelError, match=r"expected a model bundle .* 'builtin'"):
            open_bundle(str(tmp_path / place))

    def test_only_the_files_needed_are_verified(self, folder):
        (folder / "model.keras").write_bytes(b"changed")
        open_bundle(str(folder), lambda name: name != "model.keras")
        with pytest.raises(ModelError):
            open_bundle(str(folder), lambda name: name == "model.keras")

    @pytest.mark.parametrize("name", ["../outside", "saved_model/../../outside", "/etc/hostname"])
    def test_a_name_that_leaves_the_folder_is_refused(self, tmp_path, name):
        (tmp_path / "outside").write_bytes(b"x")
        folder = write_bundle(tmp_path / "bundle", {}, manifest_of({name: b"x"}))
        with pytest.raises(ModelError, match="within the bundle"):
            open_bundle(str(folder))


class TestGolden:
    def test_inputs_and_outputs_are_read(self, folder):
        inputs, expected = open_bundle(str(folder)).golden("litert_int8")
        assert (inputs.shape, inputs.dtype) == ((2, 4, 4, 3), np.uint8)
        assert expected.tolist() == [0.25, 0.5]

    def test_an_output_that_is_not_there_is_named(self, folder):
        with pytest.raises(
            ModelError, match=r"expected golden outputs 'tensorflow_float32', received \['inputs', 'litert"
        ):
            open_bundle(str(folder)).golden("tensorflow_float32")

    def test_golden_outputs_that_no_hash_covers_are_not_read(self, tmp_path):
        files = contents()
        listed = manifest_of({name: data for name, data in files.items() if name != "golden.npz"})
        with pytest.raises(ModelError, match=r"the file golden\.npz"):
            open_bundle(str(write_bundle(tmp_path / "b", files, listed))).golden("litert_int8")

    def test_pickles_are_never_loaded(self, tmp_path):
        stream = io.BytesIO()
        np.savez(stream, inputs=np.array([{"x": 1}], dtype=object), litert_int8=np.zeros(1, np.float32))
        bundle = open_bundle(str(write_bundle(tmp_path / "b", {**contents(), "golden.npz": stream.getvalue()})))
        with pytest.raises(ValueError, match="allow_pickle=False"):
            bundle.golden("litert_int8")


class TestBuiltin:
    def test_it_verifies_and_its_files_are_those_of_a_bundle(self):
        bundle = open_bundle("builtin")
        assert bundle.folder == BUILTIN_FOLDER
        assert sorted(bundle.manifest.files) == [*FILES, "training_images.npy"]

    def test_its_name_means_the_package_s_own_folder(self):
        assert resolve("builtin") == str(BUILTIN_FOLDER)
        assert resolve("./builtin") == str(Path.cwd() / "builtin")
        assert resolve("gs://bucket/model/") == "gs://bucket/model"


class StoreFileSystem(FileSystem):
    """An object store in memory, ``bundlestore://…``, which counts reads."""

    files: ClassVar[dict[str, bytes]] = {}
    reads: ClassVar[Counter[str]] = Counter()
    denied: ClassVar[set[str]] = set()

    @classmethod
    def scheme(cls):
        return "bundlestore"

    def open(self, path, mime_type="", compression_type=""):
        self.reads[path.rpartition("/")[2]] += 1
        if path in self.denied:
            raise BeamIOError("open", {path: PermissionError(13, "denied")})
        if path not in self.files:
            raise BeamIOError("open", {path: FileNotFoundError(2, "none")})
        return io.BytesIO(self.files[path])

    def exists(self, path):
        return path in self.files

    def _list(self, prefix):
        return [FileMetadata(path, len(data)) for path, data in self.files.items() if path.startswith(prefix)]

    def join(self, basepath, *paths):
        return "/".join([basepath, *paths])

    def split(self, path):
        return tuple(path.rsplit("/", 1))

    def has_dirs(self):
        return False

    def metadata(self, path):
        return FileMetadata(path, len(self.files[path]))

    def _unsupported(self, *args, **kwargs):
        raise NotImplementedError

    mkdirs = create = copy = rename = size = last_updated = checksum = delete = _unsupported


class TestRemote:
    URI = "bundlestore://bucket/models/fake"

    @pytest.fixture(autouse=True)
    def store(self, tmp_path, monkeypatch):
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
        StoreFileSystem.files.clear()
        StoreFileSystem.reads.clear()
        StoreFileSystem.denied.clear()
        self.cache = tmp_path / "cache"
        self.publish()

    def publish(self, files=None, manifest=None):
        files = contents() if files is None else files
        data = {**files, "manifest.json": (manifest or manifest_of(files)).to_json().encode()}
        StoreFileSystem.files.update({f"{self.URI}/{name}": content for name, content in data.items()})

    def test_a_bundle_is_fetched_whole_and_verified(self):
        bundle = open_bundle(f"{self.URI}/")
        assert bundle.folder == self.cache / "bundles" / bundle.manifest.fingerprint
        assert {name: (bundle.folder / name).read_bytes() for name in FILES} == contents()

    def test_the_second_time_only_the_manifest_is_read(self):
        open_bundle(self.URI)
        StoreFileSystem.reads.clear()
        open_bundle(self.URI)
        assert StoreFileSystem.reads == {"manifest.json": 1}

    def test_only_the_files_needed_are_fetched(self):
        bundle = open_bundle(self.URI, lambda name: name == "model.tflite")
        assert [path.name for path in bundle.folder.rglob("*") if path.is_file()] == ["model.tflite"]
        open_bundle(self.URI, lambda name: name == "golden.npz")
        assert StoreFileSystem.reads == {"manifest.json": 2, "model.tflite": 1, "golden.npz": 1}

    def test_a_damaged_cache_mends_itself(self):
        folder = open_bundle(self.URI).folder
        (folder / "model.tflite").write_bytes(b"damaged")
        (folder / "golden.npz").unlink()
        StoreFileSystem.reads.clear()
        open_bundle(self.URI)
        assert StoreFileSystem.reads == {"manifest.json": 1, "model.tflite": 1, "golden.npz": 1}

    @pytest.mark.parametrize("name", FILES)
    def test_a_file_changed_in_the_store_is_refused_and_not_trusted_later(self, name):
        whole = StoreFileSystem.files[f"{self.URI}/{name}"]
        StoreFileSystem.files[f"{self.URI}/{name}"] = whole + b"!"
        for _ in range(2):
            with pytest.raises(ModelError, match=re.escape(f"{self.URI}: expected {name} with SHA-256")):
                open_bundle(self.URI)
        StoreFileSystem.files[f"{self.URI}/{name}"] = whole
        open_bundle(self.URI)

    def test_a_file_missing_in_the_store_is_named(self):
        del StoreFileSystem.files[f"{self.URI}/model.tflite"]
        with pytest.raises(ModelError, match=re.escape(f"model {self.URI}: expected the file model.tflite")):
            open_bundle(self.URI)

    def test_a_forbidden_file_is_a_matter_of_storage(self):
        StoreFileSystem.denied.add(f"{self.URI}/model.tflite")
        with pytest.raises(AccessDeniedError):
            open_bundle(self.URI)

    def test_no_bundle_in_the_store(self):
        with pytest.raises(ModelError, match="expected a model bundle"):
            open_bundle("bundlestore://bucket/elsewhere")

    def test_a_store_without_a_filesystem(self):
        with pytest.raises(StorageError, match="nosuch"):
            open_bundle("nosuch://bucket/model")

    def test_a_replaced_bundle_does_not_meet_the_old_one_s_files(self):
        first = open_bundle(self.URI)
        self.publish({**contents(), "model.tflite": b"another"})
        second = open_bundle(self.URI)
        assert first.folder != second.folder
        assert (second.folder / "model.tflite").read_bytes() == b"another"

    @pytest.mark.parametrize("name", ["../../../escaped", "saved_model/../../../../escaped"])
    def test_a_name_that_leaves_the_cache_writes_nothing(self, name, tmp_path):
        self.publish({name: b"evil"})
        with pytest.raises(ModelError, match="within the bundle"):
            open_bundle(self.URI)
        assert not list(tmp_path.rglob("escaped"))
        assert not list(tmp_path.parent.glob("escaped"))

    def test_an_absolute_name_writes_nothing(self, tmp_path):
        self.publish({str(tmp_path / "escaped"): b"evil"})
        with pytest.raises(ModelError, match="within the bundle"):
            open_bundle(self.URI)
        assert not (tmp_path / "escaped").exists()

    def test_workers_may_fetch_at_once(self):
        with ThreadPoolExecutor(8) as pool:
            folders = list(pool.map(lambda _: open_bundle(self.URI).folder, range(16)))
        assert len(set(folders)) == 1
        assert sorted(p.relative_to(folders[0]).as_posix() for p in folders[0].rglob("*") if p.is_file()) == FILES

    def test_without_a_setting_the_cache_lies_in_the_temporary_folder(self, tmp_path, monkeypatch):
        monkeypatch.delenv(CACHE_VARIABLE)
        monkeypatch.setattr(bundle_module.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
        assert (tmp_path / "tmp") in open_bundle(self.URI).folder.parents


def test_file_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
