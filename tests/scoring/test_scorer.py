"""Scoring a shard with a model whose answer is the images' mean brightness."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskdet.errors import AccessDeniedError, FailureCode, NotFoundError, StorageError
from maskdet.images.preprocessing import ImageLimits
from maskdet.inputs.columns import columns_of
from maskdet.inputs.references import ImageRef
from maskdet.inputs.sharding import KeyRule, Size, cut_shards
from maskdet.labels import THREE_CLASSES
from maskdet.model.backends import Model
from maskdet.schemas import failures_schema, predictions_schema
from maskdet.scoring.scorer import ScoreOptions, Scorer
from maskdet.testing import BrightnessBackend, FaultyReader, HeldBackend, brightness_model, solid_image, tint_model

RULE = KeyRule(key_names=("site", "camera"), partition_by=("site",))
UNLIMITED = Size(10**9, 10**15)
WHOLE = solid_image(200, 24)
BAD_FILES = {
    FailureCode.EMPTY_FILE: b"",
    FailureCode.NOT_AN_IMAGE: b"plain text",
    FailureCode.CORRUPT_IMAGE: WHOLE[: len(WHOLE) // 2],
    FailureCode.TOO_FEW_PIXELS: solid_image(9, side_px=4),
}


def make_ref(uri, size_bytes=100, **changes):
    fields = {
        "uri": str(uri),
        "size_bytes": size_bytes,
        "version": "1",
        "keys": ("a", "cam"),
        "captured_at_ms": 86_400_000,
    }
    return ImageRef(**{**fields, **changes})


def shard_of(refs):
    [shard] = cut_shards(columns_of(refs), RULE, UNLIMITED)
    return shard


def in_memory(files):
    """References to files that exist only in memory, and the function that reads them."""
    return [make_ref(f"/images/{name}") for name in files], lambda uri: files[uri.rpartition("/")[2]]


def make_scorer(model=None, read=None, **options):
    reading = {"read": read} if read else {}
    return Scorer(model or brightness_model(), ScoreOptions(RULE, **options), **reading, sleep=lambda seconds: None)


def rows_of(table):
    return {row["image_uri"]: row for row in table.to_pylist()}


def gradient(value):
    return (np.arange(24 * 24 * 3) * value % 256).astype(np.uint8).reshape(24, 24, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images of known brightness, in several formats and sizes."""
    for i in range(20):
        file_format = ("PNG", "JPEG", "BMP", "WEBP")[i % 4]
        (tmp_path / f"{i:02d}.any").write_bytes(solid_image(i * 13, side_px=16 + i, file_format=file_format))
    return tmp_path


class TestRows:
    def test_probabilities_are_those_of_the_images(self, folder):
        result = make_scorer().score_shard(shard_of([make_ref(path) for path in folder.iterdir()]))
        rows = rows_of(result.predictions)
        assert len(rows) == result.predictions.num_rows == 20
        for i in range(20):
            # JPEG and WebP may miss a grey value by one of 255.
            assert rows[str(folder / f"{i:02d}.any")]["probability_mask"] == pytest.approx(i * 13 / 255, abs=1.01 / 255)

    def test_the_image_is_what_independent_code_makes_of_it(self, tmp_path):
        Image.fromarray(gradient(7)).save(tmp_path / "a.png")
        result = make_scorer().score_shard(shard_of([make_ref(tmp_path / "a.png")]))
        resized = np.asarray(Image.open(tmp_path / "a.png").resize((16, 16), Image.Resampling.BILINEAR))
        assert result.predictions["probability_mask"].to_pylist() == [np.float32(resized.astype(float).mean() / 255)]

    def test_every_column_is_filled(self, tmp_path):
        data = solid_image(255, side_px=30)
        (tmp_path / "a.png").write_bytes(data)
        result = make_scorer().score_shard(shard_of([make_ref(tmp_path / "a.png", keys=("north", None))]))
        assert result.predictions.schema.equals(predictions_schema(["site", "camera"]), check_metadata=True)
        [row] = result.predictions.to_pylist()
        assert row.pop("captured_at").isoformat() == "1970-01-02T00:00:00+00:00"
        assert row == {
            "image_uri": str(tmp_path / "a.png"),
            "site": "north",
            "camera": None,
            "content_sha256": hashlib.sha256(data).hexdigest(),
            "width_px": 30,
            "height_px": 30,
            "damaged": False,
            "face_index": 0,
            **dict.fromkeys(["face_left_px", "face_top_px", "face_width_px", "face_height_px", "face_score"]),
            "probability_mask": 1.0,
            "probability_incorrect": None,
            "probability_no_mask": 0.0,
            "label": "mask",
            "model_id": brightness_model().manifest.model_id,
            "frame_time_us": None,
        }
        assert (result.size_bytes, result.no_face.num_rows, result.failures.num_rows) == (len(data), 0, 0)
        assert min(result.seconds.fetch, result.seconds.decode, result.seconds.infer) > 0

    def test_a_model_of_three_classes_fills_three_probabilities(self):
        colours = {"a": (0, 0, 200), "b": (0, 150, 50), "c": (250, 0, 0), "d": (100, 50, 50)}
        refs, read = in_memory({name: solid_image(colour) for name, colour in colours.items()})
        model = tint_model()
        scorer = Scorer(model, ScoreOptions(RULE, model.manifest.decision, fetch_attempts=1), read=read)
        rows = rows_of(scorer.score_shard(shard_of(refs)).predictions)
        found = {uri: [row[f"probability_{name}"] for name in THREE_CLASSES] for uri, row in rows.items()}
        # Shares of blue, green and red; worn is what is not red, from .6 on, and no mask below .4.
        expected = {"a": [1, 0, 0], "b": [0.25, 0.75, 0], "c": [0, 0, 1], "d": [0.25, 0.25, 0.5]}
        assert found == {f"/images/{name}": pytest.approx(shares, abs=1e-6) for name, shares in expected.items()}
        labels = {uri[-1]: row["label"] for uri, row in rows.items()}
        assert labels == {"a": "mask", "b": "incorrect", "c": "no_mask", "d": "uncertain"}

    def test_failures_name_stage_code_and_attempts(self):
        files = {code.value: data for code, data in BAD_FILES.items()}
        refs, read = in_memory(files)
        result = make_scorer(read=read).score_shard(shard_of(refs))
        assert result.predictions.num_rows == 0
        assert result.failures.schema.equals(failures_schema(["site", "camera"]), check_metadata=True)
        for row in result.failures.to_pylist():
            assert row["image_uri"] == f"/images/{row['code']}"
            assert row["stage"] == ("fetch" if row["code"] == "empty_file" else "decode")
            assert row["attempts"] == 1
            assert row["message"]
            assert (row["site"], row["camera"]) == ("a", "cam")

    def test_the_content_and_not_the_name_tells_the_format(self, tmp_path):
        (tmp_path / "photo.png").write_bytes(solid_image(100, file_format="JPEG"))
        result = make_scorer().score_shard(shard_of([make_ref(tmp_path / "photo.png")]))
        assert result.predictions["probability_mask"][0].as_py() == pytest.approx(100 / 255, abs=0.01)

    def test_a_reference_with_a_problem_is_not_read(self):
        def read(uri):
            raise AssertionError(uri)

        refs = [
            make_ref("/a", problem=("path_mismatch", "does not fit")),
            make_ref("/b", problem=("bad_manifest_row", "no uri")),
        ]
        result = make_scorer(read=read).score_shard(shard_of(refs))
        found = [(row["stage"], row["code"], row["message"], row["attempts"]) for row in result.failures.to_pylist()]
        assert found == [("list", "path_mismatch", "does not fit", 0), ("list", "bad_manifest_row", "no uri", 0)]

    def test_an_image_listed_as_too_large_is_not_read(self):
        refs = [make_ref("/fits", 5000), make_ref("/large", 5001), make_ref("/unknown", -1)]
        reader = FaultyReader({}, lambda uri: WHOLE)
        result = make_scorer(read=reader, limits=ImageLimits(max_bytes=5000)).score_shard(shard_of(refs))
        assert reader.tries == {"/fits": 1, "/unknown": 1}
        [row] = result.failures.to_pylist()
        assert (row["image_uri"], row["code"], row["attempts"]) == ("/large", "too_many_bytes", 0)
        assert row["message"] == "5001 bytes, more than imaging.max_bytes = 5000"


class TestNeighbours:
    @settings(max_examples=40, deadline=None)
    @given(
        faults=st.dictionaries(st.integers(0, 22), st.sampled_from([*BAD_FILES, "missing", "problem"]), max_size=23),
        block_images=st.sampled_from([1, 3, 8, 64]),
    )
    def test_failures_anywhere_cost_the_others_nothing(self, faults, block_images):
        good = {f"{i:02d}": solid_image(i * 11) for i in range(23)}
        refs, _ = in_memory(good)
        files = {name: BAD_FILES.get(faults.get(int(name)), data) for name, data in good.items()}

        def read(uri):
            name = uri.rpartition("/")[2]
            if faults.get(int(name)) == "missing":
                raise NotFoundError(uri)
            return files[name]

        broken = [
            ref._replace(problem=("path_mismatch", "x")) if faults.get(i) == "problem" else ref
            for i, ref in enumerate(refs)
        ]
        model = brightness_model(block_images=block_images)
        alone = [ref for i, ref in enumerate(refs) if i not in faults]
        result = make_scorer(model, read).score_shard(shard_of(broken))
        if alone:
            expected = make_scorer(model, read).score_shard(shard_of(alone)).predictions
            assert result.predictions.equals(expected)
        else:
            assert result.predictions.num_rows == 0
        codes = {
            FailureCode.NOT_FOUND if f == "missing" else FailureCode.PATH_MISMATCH if f == "problem" else f
            for f in faults.values()
        }
        assert set(result.failures["code"].to_pylist()) == {code.value for code in codes}
        assert result.failures["image_uri"].to_pylist() == [f"/images/{i:02d}" for i in sorted(faults)]

    @pytest.mark.parametrize("block_images", [1, 2, 7, 20, 64])
    @pytest.mark.parametrize("threads", [1, 2, 16])
    def test_tables_do_not_depend_on_blocks_or_threads(self, folder, block_images, threads):
        (folder / "05.any").write_bytes(b"broken")
        shard = shard_of([make_ref(path) for path in folder.iterdir()])
        expected = make_scorer(brightness_model(block_images=20)).score_shard(shard)
        model = brightness_model(block_images=block_images)
        result = make_scorer(model, threads=threads).score_shard(shard)
        assert result.predictions.equals(expected.predictions)
        assert result.failures.equals(expected.failures)

    @pytest.mark.parametrize("max_images", [1, 3, 7])
    def test_tables_do_not_depend_on_the_cut_into_shards(self, folder, max_images):
        refs = [make_ref(path) for path in folder.iterdir()]
        scorer = make_scorer()
        parts = [
            scorer.score_shard(shard).predictions
            for shard in cut_shards(columns_of(refs), RULE, Size(max_images, 10**15))
        ]
        whole = scorer.score_shard(shard_of(refs)).predictions
        assert len(parts) >= 20 / max_images
        assert pa.concat_tables(parts).sort_by("image_uri").equals(whole.sort_by("image_uri"))

    def test_rows_come_in_the_order_of_the_references(self, folder):
        shard = shard_of([make_ref(path) for path in sorted(folder.iterdir(), reverse=True)])
        result = make_scorer(brightness_model(block_images=3)).score_shard(shard)
        assert result.predictions["image_uri"].to_pylist() == [ref.uri for ref in shard.refs]

    def test_several_shards_at_once_give_what_they_give_alone(self, folder):
        shards = cut_shards(columns_of([make_ref(path) for path in folder.iterdir()]), RULE, Size(2, 10**15)) * 4
        scorer = make_scorer(brightness_model(block_images=2), threads=3)
        expected = [make_scorer(brightness_model(block_images=2)).score_shard(shard).predictions for shard in shards]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(scorer.score_shard, shards))
        assert all(result.predictions.equals(table) for result, table in zip(results, expected, strict=True))

    def test_few_blocks_are_under_way_at_a_time(self):
        held, reads = HeldBackend(), Counter()

        def read(uri):
            reads[uri] += 1
            return WHOLE

        model = Model(brightness_model().manifest, held, 4)
        refs = [make_ref(f"/{i:03d}") for i in range(400)]
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(make_scorer(model, read, threads=2).score_shard, shard_of(refs))
            time.sleep(0.3)
            assert len(reads) <= 4 * 8  # 3 blocks decoding, 3 inferring, and what the loop is about to hand over
            held.go.set()
            assert done.result().predictions.num_rows == 400


class TestFetching:
    def run(self, errors, attempts=4):
        """Score an image whose reading fails at first; returns the result, the tries and the pauses between them."""
        pauses = []
        reader = FaultyReader({"/a": errors}, lambda uri: WHOLE)
        scorer = Scorer(
            brightness_model(), ScoreOptions(RULE, fetch_attempts=attempts), read=reader, sleep=pauses.append
        )
        result = scorer.score_shard(shard_of([make_ref("/a"), make_ref("/b")]))
        assert "/b" in rows_of(result.predictions)
        assert reader.tries["/b"] == 1
        return result, reader.tries["/a"], pauses

    @pytest.mark.parametrize("failing", [0, 1, 3])
    def test_transient_errors_are_retried_after_growing_pauses(self, failing):
        result, tries, pauses = self.run([StorageError("busy")] * failing)
        assert result.failures.num_rows == 0
        assert tries == failing + 1
        assert len(pauses) == failing
        for i, pause in enumerate(pauses):
            assert 0.5 * 0.2 * 2**i <= pause <= 1.5 * 0.2 * 2**i

    @pytest.mark.parametrize("attempts", [1, 2, 4])
    def test_the_last_error_is_the_failure(self, attempts):
        result, tries, pauses = self.run([StorageError(f"busy {i}") for i in range(9)], attempts)
        [row] = result.failures.to_pylist()
        assert (row["code"], row["stage"], row["attempts"]) == ("read_error", "fetch", attempts)
        assert row["message"] == f"busy {attempts - 1}"
        assert (tries, len(pauses)) == (attempts, attempts - 1)

    @pytest.mark.parametrize(
        ("error", "code"), [(NotFoundError("x"), "not_found"), (AccessDeniedError("x"), "access_denied")]
    )
    def test_a_final_answer_is_not_asked_again(self, error, code):
        result, tries, pauses = self.run([error])
        assert (tries, pauses) == (1, [])
        assert result.failures["code"].to_pylist() == [code]

    def test_a_final_answer_after_a_transient_one_counts_both(self):
        result, tries, _ = self.run([StorageError("busy"), NotFoundError("gone")])
        assert (tries, result.failures["attempts"].to_pylist()) == (2, [2])

    def test_files_missing_on_disk_fail_by_themselves(self, folder):
        refs = [make_ref(folder / "00.any"), make_ref(folder / "none.any"), make_ref(folder)]
        result = make_scorer().score_shard(shard_of(refs))
        assert result.predictions.num_rows == 1
        assert rows_of(result.failures)[str(folder / "none.any")]["code"] == "not_found"
        assert rows_of(result.failures)[str(folder)]["code"] == "not_a_file"


class Moody(BrightnessBackend):
    """Raises for, or gives NaN to, blocks that hold an image of a certain brightness."""

    def __init__(self, raises_at=(), nan_at=()):
        super().__init__()
        self.raises_at, self.nan_at = raises_at, nan_at

    def run(self, block):
        values = block[:, 0, 0, 0]
        if np.isin(values, self.raises_at).any():
            raise RuntimeError(f"at {id(self):#x}")
        return np.where(np.isin(values, self.nan_at), np.float32("nan"), super().run(block))


class TestInference:
    def score(self, backend, values, block_images=4):
        refs, read = in_memory({f"{value:03d}": solid_image(value) for value in values})
        model = Model(brightness_model().manifest, backend, block_images)
        result = make_scorer(model, read, threads=1).score_shard(shard_of(refs))
        scored = {int(uri[-3:]): row["probability_mask"] for uri, row in rows_of(result.predictions).items()}
        return scored, {int(uri[-3:]): (row["code"], row["message"]) for uri, row in rows_of(result.failures).items()}

    def test_no_finite_probability_is_a_failure_of_that_image(self):
        scored, failed = self.score(Moody(nan_at=[20, 90]), range(10, 100, 10))
        assert set(scored) == {10, 30, 40, 50, 60, 70, 80}
        assert failed == dict.fromkeys([20, 90], ("not_finite", "the model gave no finite probability"))

    def test_after_an_error_each_image_of_the_block_is_tried_alone(self):
        backend = Moody(raises_at=[30])
        scored, failed = self.score(backend, range(10, 100, 10))
        assert scored == {value: np.float32(value / 255) for value in range(10, 100, 10) if value != 30}
        assert failed == {30: ("inference_error", "the model raised RuntimeError")}
        assert backend.calls == 3 + 2  # three of the first block alone, and the two other blocks

    def test_a_model_that_always_raises_fails_every_image(self):
        scored, failed = self.score(Moody(raises_at=range(256)), [10, 20, 30])
        assert scored == {}
        assert [code for code, _ in failed.values()] == ["inference_error"] * 3

    def test_a_block_without_a_readable_image_is_not_run(self):
        backend = BrightnessBackend()
        refs, read = in_memory({f"{i}": b"x" for i in range(8)})
        result = make_scorer(Model(brightness_model().manifest, backend, 4), read).score_shard(shard_of(refs))
        assert (result.failures.num_rows, backend.calls) == (8, 0)


class TestProgress:
    @pytest.mark.parametrize("images", [1, 8, 9, 50])
    def test_progress_adds_up_to_the_images(self, images):
        files = {f"{i:02d}": b"" if i % 3 == 0 else WHOLE for i in range(images)}
        refs, read = in_memory(files)
        told = []
        make_scorer(brightness_model(block_images=8), read).score_shard(shard_of(refs), told.append)
        assert sum(told) == images
        assert len(told) == -(-images // 8)

    @pytest.mark.parametrize(
        ("images", "threads", "part_images"),
        [(400, 2, 16), (100, 2, 16), (63, 2, 12), (40, 2, 8), (100, 8, 4), (3, 1, 4)],
    )
    def test_a_part_is_a_few_blocks_and_every_thread_has_two(self, images, threads, part_images):
        refs, read = in_memory({f"{i:03d}": WHOLE for i in range(images)})
        told = []
        model = brightness_model(block_images=4)
        make_scorer(model, read, threads=threads).score_shard(shard_of(refs), told.append)
        assert told == [min(part_images, images - begun) for begun in range(0, images, part_images)]
