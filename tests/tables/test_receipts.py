"""Finished shards: when one is kept, when it is scored again, and what its receipt and tables contain."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskdet import storage
from maskdet.compliance.groups import Grouping
from maskdet.compliance.state import Counts, GroupKey
from maskdet.config import ScoreSettings
from maskdet.errors import AccessDeniedError, FailureCode, StorageError
from maskdet.inputs.columns import columns_of
from maskdet.inputs.references import ImageRef
from maskdet.inputs.sharding import KeyRule, Size, cut_shards
from maskdet.labels import Decision
from maskdet.model.backends import RuntimeSpec
from maskdet.scoring.fingerprint import scoring_fingerprint
from maskdet.scoring.scorer import ScoreOptions, Scorer
from maskdet.tables.images import Ending, endings_of, refs_of
from maskdet.tables.layout import IMAGES, Layout, read_version
from maskdet.tables.receipts import Receipt, ShardJob, read_receipt
from maskdet.tables.results import StageSeconds
from maskdet.testing import FaultyReader, brightness_model, solid_image

RULE = KeyRule(("site", "camera"), ("site",))
LEVELS = {"all": (), "camera": ("camera",)}
SLOT = "site-a/shard-all"


class Work:
    """Six images in one shard, two of them broken, and the job that finishes it."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.images.mkdir()
        for i in range(6):
            self.put(i, b"broken" if i in (1, 4) else solid_image(i * 50))
        self.layout = Layout(str(folder / "out"))
        self.output = folder / "out"
        self.receipt = self.output / "_shards" / f"{SLOT}.json"
        self.shards_scored = 0

    @property
    def predictions(self):
        return self.version("predictions")

    @property
    def failures(self):
        return self.version("failures")

    def version(self, table):
        """The file of a table that the receipt names."""
        return Path(self.layout.version(table, SLOT, read_receipt(self.layout, SLOT).sha256[table]))

    def put(self, number, data):
        (self.images / f"{number}.png").write_bytes(data)

    def job(self, **changes):
        fields = {"layout": self.layout, "fingerprint": "f1", "rule": RULE, "row_group_rows": 1000}
        fields["grouping"] = Grouping(LEVELS, ("camera",))
        return ShardJob(**{**fields, **changes})

    def shard(self, numbers=range(6), version="1"):
        refs = [ImageRef(str(self.images / f"{i}.png"), 1, version, ("a", f"c{i % 2}")) for i in numbers]
        [shard] = cut_shards(columns_of(refs), RULE, Size(100, 10**9))
        assert shard.slot == SLOT
        return shard

    def finish(self, shard=None, *, read=None, **changes):
        """Finish a shard; says whether it was scored."""
        reading = {"read": read} if read else {}
        scorer = Scorer(brightness_model(), ScoreOptions(RULE), **reading, sleep=lambda seconds: None)

        def score(todo):
            self.shards_scored += 1
            return scorer.score_shard(todo)

        return self.job(**changes).finish(shard or self.shard(), score)

    def contents(self):
        return {str(p.relative_to(self.output)): p.read_bytes() for p in self.output.rglob("*") if p.is_file()}


@pytest.fixture
def work(tmp_path):
    return Work(tmp_path)


class TestReceipt:
    def test_it_says_what_the_tables_hold(self, work):
        report = work.finish()
        receipt = report.receipt
        assert (receipt.slot, receipt.shard_id, receipt.fingerprint) == (SLOT, work.shard().shard_id, "f1")
        assert (receipt.images, receipt.scored, receipt.no_face) == (6, 4, 0)
        assert receipt.failed == {"not_an_image": 2}
        assert receipt.rows == {"predictions": 4, "failures": 2}
        assert receipt.size_bytes == sum((work.images / f"{i}.png").stat().st_size for i in (0, 2, 3, 5))
        assert read_receipt(work.layout, SLOT) == receipt == Receipt.model_validate_json(work.receipt.read_text())
        assert pq.read_metadata(work.predictions).num_rows == 4
        assert pq.read_metadata(work.failures).num_rows == 2

    def test_groups_are_counted(self, work):
        # Brightness of images 0, 2, 3, 5: 0, 100, 150, 250 of 255; 3 and 5 are of camera c1.
        groups = work.finish().groups
        assert {key: state.counts for key, state in groups.items()} == {
            GroupKey("all", ()): Counts(4, 0, 2, 2, 2, 0),
            GroupKey("camera", ("c0",)): Counts(2, 0, 1, 0, 2, 0),
            GroupKey("camera", ("c1",)): Counts(2, 0, 1, 2, 0, 0),
        }

    def test_tables_carry_the_marks_of_their_shard(self, work):
        work.finish()
        for path in (work.predictions, work.failures):
            found = pq.read_schema(path).metadata
            assert found[b"maskdet.slot"] == SLOT.encode()
            assert found[b"maskdet.shard_id"] == work.shard().shard_id.encode()
            assert found[b"maskdet.fingerprint"] == b"f1"

    def test_two_runs_leave_the_same_bytes(self, work, tmp_path):
        work.finish()
        first = work.contents()
        shutil.rmtree(work.output)
        work.finish()
        assert work.contents() == first
        names = [f"_files/{table}/{SLOT}" for table in ("failures", "images", "predictions")]
        assert [re.sub(r"-[0-9a-f]{20}\.pq$", "", name) for name in sorted(first)] == [*names, f"_shards/{SLOT}.json"]

    def test_the_receipt_is_written_last(self, work, monkeypatch):
        write = storage.write_bytes

        def fail_at_receipts(uri, data):
            if "_shards" in uri:
                raise StorageError("disk full")
            write(uri, data)

        monkeypatch.setattr(storage, "write_bytes", fail_at_receipts)
        with pytest.raises(StorageError, match="disk full"):
            work.finish()
        assert len([name for name in work.contents() if name.endswith(".pq")]) == 3
        assert read_receipt(work.layout, SLOT) is None

    def test_it_remembers_every_image_and_how_it_ended(self, work):
        receipt = work.finish(scored_by="model").receipt
        images = read_version(work.layout, IMAGES, SLOT, receipt.sha256[IMAGES])
        shard = work.shard()
        assert [ref.identity for ref in refs_of(images, SLOT)] == [ref.identity for ref in shard.refs]
        assert all(ref.gone and ref.earlier == SLOT for ref in refs_of(images, SLOT))
        outcomes = ["not_an_image" if i in (1, 4) else "scored" for i in range(6)]
        assert endings_of(images) == {
            ref.uri: Ending(outcome, "model") for ref, outcome in zip(shard.refs, outcomes, strict=True)
        }

    @pytest.mark.parametrize("code", list(FailureCode))
    def test_only_transient_failures_are_worth_another_try(self, work, code):
        receipt = work.finish().receipt.model_copy(update={"failed": {"not_an_image": 1, code.value: 1}})
        transient = {"not_found", "read_error", "access_denied", "out_of_memory", "inference_error"}
        transient |= {"decode_timeout", "decoder_crashed"}  # a busy machine, or a killed process
        assert receipt.retryable == (code in transient)


class TestKeeping:
    def test_an_unchanged_shard_is_kept_with_the_same_counts(self, work):
        first = work.finish()
        before = work.contents()
        second = work.finish()
        assert (first.kept, second.kept, work.shards_scored) == (False, True, 1)
        assert (second.receipt, second.groups) == (first.receipt, first.groups)
        assert second.seconds == StageSeconds()
        assert first.seconds.write > 0
        assert work.contents() == before
        assert work.job().is_finished(work.shard())

    def test_levels_may_change_without_scoring_again(self, work):
        work.finish()
        report = work.finish(grouping=Grouping({"all": (), "hour": ("hour",)}))
        assert report.kept
        assert report.groups[GroupKey("hour", (None,))].counts == Counts(4, 0, 2, 2, 2, 0)

    @pytest.mark.parametrize("name", ["numbers", "version", "fingerprint"])
    def test_other_images_versions_or_settings_are_scored_again(self, work, name):
        work.finish()
        changes = {"fingerprint": "f2"} if name == "fingerprint" else {}
        shard = work.shard(**{"numbers": {"numbers": range(5)}, "version": {"version": "2"}}.get(name, {}))
        assert not work.job(**changes).is_finished(shard)
        assert not work.finish(shard, **changes).kept
        assert work.finish(shard, **changes).kept

    @pytest.mark.parametrize("table", ["predictions", "failures"])
    @pytest.mark.parametrize("harm", ["deleted", "truncated", "emptied", "foreign", "older", "one bit", "fewer rows"])
    def test_a_missing_or_altered_table_is_scored_again(self, work, table, harm):
        first = work.finish()
        path = work.version(table)
        data = path.read_bytes()
        if harm == "deleted":
            path.unlink()
        elif harm == "foreign":
            pq.write_table(pa.table({"x": [1] * first.receipt.rows[table]}), path)
        elif harm == "older":  # the same rows, of another shard
            marks = {**pq.read_schema(path).metadata, b"maskdet.shard_id": b"other"}
            pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata(marks), path)
        elif harm == "fewer rows":
            pq.write_table(pq.ParquetFile(path).read().slice(1), path)
        else:
            middle = len(data) // 2
            altered = {
                "truncated": data[:middle],
                "emptied": b"",
                "one bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            }
            path.write_bytes(altered[harm])
        second = work.finish()
        assert not second.kept
        assert (second.receipt, second.groups) == (first.receipt, first.groups)
        assert path.read_bytes() == data

    def test_no_byte_of_a_kept_table_may_change(self, work):
        work.finish()
        path, data = work.predictions, work.predictions.read_bytes()
        for i in range(0, len(data), 61):
            path.write_bytes(data[:i] + bytes([data[i] ^ 128]) + data[i + 1 :])
            assert work.job()._kept(work.shard()) is None, i

    @pytest.mark.parametrize("text", ["", "{}", "not json", b"\xff\xfe", '{"slot": 1}'])
    def test_a_damaged_receipt_is_scored_again(self, work, text):
        work.finish()
        good = work.receipt.read_bytes()
        work.receipt.write_bytes(text if isinstance(text, bytes) else text.encode())
        assert not work.finish().kept
        assert work.receipt.read_bytes() == good

    def test_a_receipt_of_another_version_is_scored_again(self, work):
        work.finish()
        work.receipt.write_text(json.dumps({**json.loads(work.receipt.read_text()), "unknown": 1}))
        assert not work.finish().kept

    def test_output_that_cannot_be_read_is_an_error_and_not_work(self, work, monkeypatch):
        work.finish()

        def refuse(uri):
            raise AccessDeniedError(uri)

        monkeypatch.setattr(storage, "read_bytes", refuse)
        with pytest.raises(AccessDeniedError):
            work.finish()
        assert work.shards_scored == 1

    def test_transient_failures_are_tried_again_by_the_next_run(self, work):
        uri = str(work.images / "2.png")
        reader = FaultyReader({uri: [StorageError("busy")] * 4})
        first = work.finish(read=reader)
        assert first.receipt.failed == {"not_an_image": 2, "read_error": 1}
        assert not work.job().is_finished(work.shard())
        second = work.finish(read=reader)
        assert not second.kept
        assert second.receipt.failed == {"not_an_image": 2}
        assert reader.tries[uri] == 5
        assert work.finish(read=reader).kept

    def test_permanent_failures_are_not_tried_again(self, work):
        assert work.finish().receipt.failed == {"not_an_image": 2}
        assert work.finish().kept

    def test_what_was_listed_and_then_not_found_is_looked_for_again(self, work):
        away = work.images / "2.png"
        data = away.read_bytes()
        shard = work.shard()
        away.unlink()
        assert work.finish(shard=shard).receipt.failed == {"not_an_image": 2, "not_found": 1}
        away.write_bytes(data)
        again = work.finish(shard=shard)
        assert not again.kept
        assert again.receipt.failed == {"not_an_image": 2}

    def test_a_table_without_rows_has_no_file(self, work):
        work.finish()
        work.put(1, solid_image(50))
        work.put(4, solid_image(200))
        report = work.finish(work.shard(version="2"))
        assert report.receipt.rows == {"predictions": 6}
        assert set(report.receipt.sha256) == {"predictions", "images"}
        for i in range(6):
            work.put(i, b"")
        report = work.finish(work.shard(version="3"))
        assert report.receipt.rows == {"failures": 6}
        assert set(report.receipt.sha256) == {"failures", "images"}
        assert work.finish(work.shard(version="3")).kept

    def test_a_run_that_died_between_its_tables_is_redone(self, work):
        work.finish()
        old = work.contents()
        work.put(0, solid_image(255))
        work.finish(work.shard(version="2"))
        new = work.contents()
        # The old receipt, with the newer predictions beside it.
        work.receipt.write_bytes(old[f"_shards/{SLOT}.json"])
        assert not work.finish(work.shard(version="2")).kept
        assert work.contents() == new
        assert old.items() - new.items() == {(f"_shards/{SLOT}.json", old[f"_shards/{SLOT}.json"])}


def settings_of(**sections):
    return ScoreSettings.model_validate({"input": "in", "output": "out", **sections})


def fingerprint(settings=None, manifest=None, spec=None, decision=None):
    return scoring_fingerprint(
        settings or settings_of(),
        manifest or brightness_model().manifest,
        spec or RuntimeSpec(),
        decision or Decision(),
    )


class TestFingerprint:
    @pytest.mark.parametrize(
        "changes",
        [
            {"settings": settings_of(imaging={"jpeg_draft": False})},
            {"settings": settings_of(imaging={"max_pixels": 10})},
            {"settings": settings_of(imaging={"max_bytes": 10})},
            {"settings": settings_of(imaging={"min_side_px": 10})},
            {"settings": settings_of(source={"timezone": "Europe/Berlin"})},
            {"settings": settings_of(source={"keys": ["site"]})},
            {"settings": settings_of(source={"keys": ["site"]}, tables={"partition_by": []})},
            {"manifest": brightness_model(side_px=17).manifest},
            {"spec": RuntimeSpec(precision="float32")},
            {"spec": RuntimeSpec(backend="tensorflow", precision="float32")},
            {"decision": Decision(no_mask_below=0.4)},
            {"decision": Decision(mask_from=0.6)},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_what_may_change_a_row_changes_it(self, changes):
        assert fingerprint(**changes) != fingerprint()

    def test_every_such_change_has_its_own(self):
        zones = {fingerprint(settings_of(source={"timezone": zone})) for zone in ("UTC", "Asia/Tokyo", "Europe/Berlin")}
        keys = {
            fingerprint(settings_of(source={"keys": ["site"]}, tables={"partition_by": names}))
            for names in ([], ["site"])
        }
        assert (len(zones), len(keys)) == (3, 2)

    @pytest.mark.parametrize(
        "changes",
        [
            {
                "settings": settings_of(
                    scoring={"threads": 7, "inference_threads": 3, "block_images": 5, "fetch_attempts": 9}
                )
            },
            {"settings": settings_of(packing={"max_images": 7, "max_bytes": 1000})},
            {"settings": settings_of(tables={"row_group_rows": 5})},
            {"settings": settings_of(failure_budget={"max_ratio": 1.0, "max_images": 3})},
            {"settings": settings_of(compliance={"confidence": 0.5})},
            {"settings": settings_of(input="elsewhere", output="there")},
            {"spec": RuntimeSpec(threads=9, block_images=5)},
        ],
        ids=["scoring", "packing", "row groups", "budget", "compliance", "places", "spec"],
    )
    def test_what_changes_no_row_does_not(self, changes):
        assert fingerprint(**changes) == fingerprint()

    def test_versions_of_the_libraries_count(self, monkeypatch):
        before = fingerprint()
        monkeypatch.setattr("maskdet.images.codecs.metadata.version", lambda package: "0.0")
        assert fingerprint() != before
