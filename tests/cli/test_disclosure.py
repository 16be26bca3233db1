"""Where the tables hide small groups or round counts, nothing else that is made from the output reveals them."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from maskdet.cli import main
from maskdet.compliance.corrections import Corrections
from maskdet.sections import PrivacySettings
from maskdet.tables.disclosure import shown_changes, shown_count, shown_images, shown_videos
from maskdet.tables.recount import correct_faces
from maskdet.tables.run_records import ImageCounts
from maskdet.tables.videos import VideoCounts
from tests.outputs import NOW, face, write_output

START = datetime(2026, 3, 2, 8, tzinfo=UTC)
FACES = {"mask": 23, "no_mask": 12, "incorrect": 7}


def images(extra=0):
    """One face per image: all of site a, except the extra ones, which are of site b."""
    labels = [label for label, count in FACES.items() for _ in range(count)]
    rows = [
        (f"/a/{n}.jpg", ("a", f"c{n % 3}"), START + timedelta(hours=n), [face(one)]) for n, one in enumerate(labels)
    ]
    return rows + [(f"/b/{number}.jpg", ("b", "c"), START, [face("no_mask")]) for number in range(extra)]


def written(folder, privacy, extra=0):
    """An output as a run with these settings leaves it: its tables hide and round."""
    settings, run_id = {"privacy": privacy}, "20260301T000000.000000Z-abcdef"  # before the recount's
    layout = write_output(folder, images(extra), levels={"site": ("site",)}, settings=settings, run_id=run_id)
    correct_faces(layout, Corrections(), NOW + timedelta(days=1))
    return layout


def run(*arguments):
    return main.main([str(argument) for argument in arguments])


def metrics(layout, tmp_path):
    run("status", layout.root, "--metrics", tmp_path / "m.prom")
    families = text_string_to_metric_families((tmp_path / "m.prom").read_text())
    return {
        (sample.name, *(value for name, value in sample.labels.items() if name != "output")): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("privacy", [{"min_cell": 5}, {"round_to": 5}], ids=["min_cell", "round_to"])
@pytest.mark.parametrize("command", ["report", "diff", "compare-runs", "audit sample", "explore"])
def test_commands_that_count_rows_refuse_unless_their_reader_may_see_it(tmp_path, privacy, command, capsys):
    guarded = written(tmp_path / "guarded", privacy, extra=3)
    free = written(tmp_path / "free", {})
    given = {
        "report": ["report", guarded.root, "--output", tmp_path / "made"],
        "diff": ["diff", free.root, guarded.root, "--by", "site", "--output", tmp_path / "made.json"],
        "compare-runs": ["compare-runs", guarded.root, free.root, "--output", tmp_path / "made"],
        "audit sample": ["audit", "sample", guarded.root, "--size", 20, "--sample", tmp_path / "made"],
        "explore": ["explore", guarded.root, "--port", 99999],
    }[command]
    capsys.readouterr()
    assert run(*given) == 2
    said = capsys.readouterr()
    [(name, value)] = privacy.items()
    assert f"privacy.{name} = {value}" in said.err and "--small-groups" in said.err
    assert said.out == ""
    assert not list(tmp_path.glob("made*"))
    allowed = run(*given, "--small-groups")
    # The explorer gets as far as its port, which is invalid; everything else ends well.
    assert (allowed, "--port" in capsys.readouterr().err) == ((2, True) if command == "explore" else (0, False))


def test_labels_are_not_applied_without_it_either(tmp_path, capsys):
    layout = written(tmp_path / "tables", {"min_cell": 5}, extra=3)
    sample, labels = tmp_path / "audit.parquet", tmp_path / "audit.ana.csv"
    assert run("audit", "sample", layout.root, "--size", 20, "--sample", sample, "--small-groups") == 0
    labels.write_text("image_uri,content_sha256,face_index,label\n")
    with labels.open("a") as stream:
        for row in pq.read_table(sample).to_pylist():
            print(row["image_uri"], row["content_sha256"], row["face_index"], "mask", sep=",", file=stream)
    apply = ("audit", "apply", layout.root, sample, "--labels", labels)
    assert run(*apply) == 2
    assert "--small-groups" in capsys.readouterr().err
    assert run(*apply, "--small-groups") == 0


def test_metrics_say_what_the_compliance_tables_say(tmp_path):
    plain = metrics(written(tmp_path / "plain", {}), tmp_path)
    assert {key[1]: value for key, value in plain.items() if key[0] == "maskdet_faces" and value} == FACES
    rounded = metrics(written(tmp_path / "rounded", {"round_to": 10}), tmp_path)
    assert {key[1]: value for key, value in rounded.items() if key[0] == "maskdet_faces" and value} == {
        "mask": 20,
        "no_mask": 10,
        "incorrect": 10,
    }
    assert rounded["maskdet_last_success_scored_images",] % 10 == 0
    shown = metrics(written(tmp_path / "shown", {"min_cell": 7}), tmp_path)
    assert {key[1]: value for key, value in shown.items() if key[0] == "maskdet_faces" and value} == {
        "mask": 21,
        "no_mask": 14,
        "incorrect": 7,
    }
    hidden = metrics(written(tmp_path / "hidden", {"min_cell": 8}), tmp_path)
    assert not any(key[0] == "maskdet_faces" for key in hidden)
    assert hidden.keys() < plain.keys()


def test_a_hidden_total_is_not_told_by_metrics(tmp_path):
    """The total is hidden along with a small site's count, which would follow from it: metrics hide it, too."""
    layout = written(tmp_path / "tables", {"min_cell": 5}, extra=3)
    [row] = pq.read_table(layout.compliance("all")).to_pylist()
    told = {key[1]: value for key, value in metrics(layout, tmp_path).items() if key[0] == "maskdet_faces" and value}
    assert told == ({} if row["hidden"] else {"mask": 25, "no_mask": 15, "incorrect": 5})  # of 23, 15 and 7


def test_images_of_a_run_are_hidden_whole_where_few_could_be_told_by_them():
    images = ImageCounts(listed=129, scored=118, no_face=4, failed=7)
    fours = {"listed": 132, "scored": 120, "no_face": 4, "failed": 8, "skipped": 0}
    assert shown_images(images, PrivacySettings(min_cell=4)) == fours
    assert shown_images(images, PrivacySettings()) == images.model_dump()
    assert shown_images(images, PrivacySettings(min_cell=5)) == {}  # 4 follows from all others
    rounded = {"listed": 130, "scored": 120, "no_face": 0, "failed": 10, "skipped": 0}
    assert shown_images(images, PrivacySettings(round_to=10)) == rounded
    both = PrivacySettings(min_cell=5, round_to=10)
    assert [shown_count(count, both) for count in (0, 4, 5, 14)] == [0, None, 10, 10]
    found = {"added": 12, "absent": 4, "gone": 5}
    others = dict.fromkeys(("changed", "unchanged", "removed", "displaced", "lost", "outside"), 0)
    assert shown_changes(found, PrivacySettings(min_cell=5)) == {"added": 10, "gone": 5, **others}
    assert shown_changes(found, PrivacySettings()) == {**found, **others}
    videos = VideoCounts(listed=14, scored=11, failed=3)
    assert shown_videos(videos, PrivacySettings(min_cell=5)) == {"listed": 15, "scored": 10, "failed": 5}
    assert shown_videos(videos, PrivacySettings(min_cell=12)) == {}


@pytest.mark.parametrize(("least", "base", "step"), [(5, 1, 5), (7, 5, 10), (2, 10, 10), (1, 3, 3), (0, 4, 4)])
def test_what_is_read_again_and_again_never_changes_by_few(least, base, step):
    """One more image at a time: what is shown stays, or changes by no less than a group that may be shown."""
    privacy = PrivacySettings(min_cell=least, round_to=base)
    counts = [ImageCounts(listed=n + 33, scored=n, no_face=20, failed=13) for n in range(20, 90)]
    for name in ("listed", "scored"):
        told = [shown_images(one, privacy)[name] for one in counts]
        changes = [place for place in range(1, len(told)) if told[place] != told[place - 1]]
        assert {told[place] - told[place - 1] for place in changes} == {step}
        assert {later - earlier for earlier, later in itertools.pairwise(changes)} == {step}
    # Both of them together: each reveals its steps at the same moments.
    told = {(one["listed"], one["scored"]) for one in (shown_images(count, privacy) for count in counts)}
    assert len(told) == len({scored for _, scored in told})
