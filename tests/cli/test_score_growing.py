"""An output as a growing data set: what a run adds, replaces, keeps and removes, and how its record counts that."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from maskdet.demo.faces import DEMO_TEMPLATE
from maskdet.inputs.earlier import ADDED, CHANGED, GONE, OUTSIDE, REMOVED, UNCHANGED
from maskdet.model.bundle import read_manifest
from maskdet.tables.layout import COMPLIANCE, FAILURES, PREDICTIONS, SHARD_TABLES
from maskdet.testing import solid_image

LENIENT = ("--set", "failure_budget.max_ratio=0.9")
REMOVE = ("--set", "tables.on_gone=remove")
DAY = "*/*/{day}/**"


@pytest.fixture
def photos(put_back):
    """A copy of the demo tree to change."""
    return put_back()


@pytest.fixture
def days(photos):
    """The demo's two days as globs, each an input of its own."""
    names = sorted({path.name for path in photos.glob("*/*/*") if path.is_dir()})
    assert len(names) == 2
    return [photos / DAY.format(day=day) for day in names]


def faces_of(photos, day):
    """Files of a day's faces, sorted."""
    found = sorted(path for path in photos.rglob("face-*") if day.parent.name in path.parts)
    assert found
    return found


def count(run):
    return dict(run.changes)


def images(table):
    return set(table["image_uri"].to_pylist())


LARGE = pytest.param((), id="large shards", marks=pytest.mark.thorough)
SMALL = pytest.param(("--set", "packing.max_images=3"), id="small shards")


@pytest.fixture(params=[LARGE, SMALL])
def flags(request):
    return (*LENIENT, *request.param)


def test_a_run_over_another_day_adds_it_and_the_tables_are_those_of_one_run_over_both(
    photos, days, score, first_run, tmp_path, flags
):
    first = first_run(tmp_path / "tables", days[0], flags=flags)
    size = first.run.dataset.listed
    assert count(first.run) == {ADDED: first.run.images.listed}
    second = score(tmp_path / "tables", days[1], flags=flags)
    both = score(tmp_path / "fresh", *days, flags=flags)
    assert first.code == second.code == both.code == 0
    assert count(second.run) == {ADDED: second.run.images.listed, OUTSIDE: size}
    assert second.run.images.listed == second.run.images.accounted
    assert second.run.images_scored_now == second.run.images.listed
    assert second.run.dataset == both.run.dataset
    assert second.contents() == both.contents()
    assert files(second.folder) == files(both.folder)


def files(folder):
    """Every file of the tables, by name, as bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for table in (*SHARD_TABLES, COMPLIANCE)
        for path in (folder / table).rglob("*")
        if path.is_file()
    }


def test_a_second_run_over_a_day_replaces_that_day(photos, days, score, first_run, tmp_path, flags):
    first_run(tmp_path / "tables", days[0], flags=flags)
    score(tmp_path / "tables", days[1], flags=flags)
    changed = faces_of(photos, days[1])[0]
    changed.write_bytes(solid_image(250))
    (changed.parent / "face-99999-mask.png").write_bytes(solid_image(50))
    again = score(tmp_path / "tables", days[1], flags=flags)
    both = score(tmp_path / "fresh", *days, flags=flags)
    assert count(again.run) == {
        ADDED: 1,
        CHANGED: 1,
        UNCHANGED: again.run.images.listed - 2,
        OUTSIDE: again.run.dataset.listed - again.run.images.listed,
    }
    assert again.run.images_scored_now == 2  # rows of the others are taken as they are
    assert files(again.folder) == files(both.folder)


def test_rows_of_images_that_are_gone_stay(photos, score, first_run, tmp_path, flags):
    before = first_run(tmp_path / "tables", photos, flags=flags)
    rows, compliance, listed = before.table(PREDICTIONS), before.table(COMPLIANCE), before.run.images.listed
    gone = sorted(photos.rglob("face-*"))[:5]
    for path in gone:
        path.unlink()
    after = score(tmp_path / "tables", photos, flags=flags)
    assert after.code == 0
    assert count(after.run) == {GONE: 5, UNCHANGED: after.run.images.listed - after.run.images.skipped}
    assert after.run.images_scored_now == 0
    assert after.run.images.listed == listed - 5
    assert after.table(PREDICTIONS).equals(rows)
    assert after.table(COMPLIANCE).equals(compliance)
    # They also stay when the shards around them change, and when they come back.
    (gone[0].parent / "face-99999-mask.png").write_bytes(solid_image(50))
    assert images(score(tmp_path / "tables", photos, flags=flags).table(PREDICTIONS)) == images(rows) | {
        str(gone[0].parent / "face-99999-mask.png")
    }


def test_rows_of_images_that_are_gone_go_where_the_tables_mirror_the_input(photos, score, first_run, tmp_path, flags):
    first_run(tmp_path / "tables", photos, flags=flags)
    for path in sorted(photos.rglob("face-*"))[:5]:
        path.unlink()
    after = score(tmp_path / "tables", photos, flags=(*flags, *REMOVE))
    fresh = score(tmp_path / "fresh", photos, flags=flags)
    assert count(after.run)[REMOVED] == 5
    assert after.run.images_scored_now == 0
    assert files(after.folder) == files(fresh.folder)


def test_a_mirror_removes_nothing_beyond_its_input(photos, days, score, first_run, tmp_path):
    first_run(tmp_path / "tables", days[0], flags=LENIENT)
    score(tmp_path / "tables", days[1], flags=LENIENT)
    other = faces_of(photos, days[0])
    for path in other:
        path.unlink()
    after = score(tmp_path / "tables", days[1], flags=(*LENIENT, *REMOVE))
    assert REMOVED not in count(after.run)
    assert {str(path) for path in other} <= images(after.table(PREDICTIONS)) | images(after.table(FAILURES))


def test_a_run_that_would_remove_too_much_is_refused_and_changes_nothing(photos, score, first_run, tmp_path, capfd):
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    before = files(tmp_path / "tables")
    gone = sorted(photos.rglob("face-*"))
    for path in gone[: len(gone) * 3 // 4]:
        path.unlink()
    refused = score(tmp_path / "tables", photos, flags=(*LENIENT, *REMOVE))
    assert refused.code == 8
    shown = capfd.readouterr().err
    assert f"received {len(gone) * 3 // 4} that are gone" in shown
    assert "tables.max_gone_ratio" in shown
    assert refused.run.status == "shrunk"
    assert not refused.succeeded
    assert files(tmp_path / "tables") == before
    allowed = score(tmp_path / "tables", photos, flags=(*LENIENT, *REMOVE, "--set", "tables.max_gone_ratio=0.9"))
    assert allowed.code == 0
    assert count(allowed.run)[REMOVED] == len(gone) * 3 // 4


def test_a_run_from_another_folder_in_which_known_paths_no_longer_fit_is_refused(
    photos, score, first_run, tmp_path, capfd
):
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    before, tables = files(tmp_path / "tables"), score(tmp_path / "tables", photos, flags=LENIENT).contents()
    site = sorted(path for path in photos.iterdir() if path.is_dir())[0]
    known = list(site.rglob("face-*"))
    refused = score(tmp_path / "tables", site, flags=LENIENT)  # the template's first folder is left out
    assert (refused.code, refused.run.status) == (8, "shrunk")
    assert (
        f"received {refused.run.changes['displaced']} whose path or list row no longer fits" in capfd.readouterr().err
    )
    assert refused.run.changes["displaced"] >= len(known)
    assert files(tmp_path / "tables") == before
    assert score(tmp_path / "tables", photos, flags=LENIENT).contents() == tables
    wanted = ("--set", "tables.max_gone_ratio=1", "--set", "failure_budget.max_ratio=1")
    allowed = score(tmp_path / "tables", site, flags=wanted)
    assert allowed.code == 0
    # The files are as they were, and so are their rows; the stray file's failure names its path from the new root.
    assert allowed.contents()[PREDICTIONS] == tables[PREDICTIONS]
    assert images(allowed.table(FAILURES)) == images(score(tmp_path / "fresh", photos, flags=LENIENT).table(FAILURES))


def test_a_wrong_root_costs_no_row_of_a_file_that_did_not_change(photos, score, first_run, tmp_path, capfd):
    """Where fewer than ``tables.max_gone_ratio`` are concerned, the run goes on, and only new images fail."""
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    site, *others = sorted(path for path in photos.iterdir() if path.is_dir())
    changed, *known = sorted(site.rglob("face-*"))
    new = changed.with_name("face-new.png")
    new.write_bytes(solid_image(60))
    changed.write_bytes(solid_image(70))
    right = [other / "**" for other in others]  # the template is matched against the end of a glob's paths
    ratios = ("--set", "tables.max_gone_ratio=0.9", "--set", "failure_budget.max_ratio=1")
    after = score(tmp_path / "tables", site, *right, flags=ratios)
    assert after.code == 0
    found = count(after.run)
    assert found["displaced"] >= len(known)
    assert (found["lost"], found["added"]) == (1, 1)
    assert "no longer fits, whose rows stay, 1 whose rows a failure replaces" in "".join(capfd.readouterr())
    assert {str(path) for path in known} <= images(after.table(PREDICTIONS))
    assert {str(changed), str(new)} <= images(after.table(FAILURES))
    keys = after.table(PREDICTIONS).select(["image_uri", "site"]).to_pylist()
    assert {row["site"] for row in keys if row["image_uri"] in set(map(str, known))} == {site.name}
    mended = score(tmp_path / "tables", photos, flags=LENIENT)
    assert mended.run.images_scored_now >= 2
    assert mended.contents() == score(tmp_path / "fresh", photos, flags=LENIENT).contents()


def test_a_list_covers_what_it_names_and_all_where_all_came_from_it(photos, score, tmp_path):
    listed = sorted(str(path) for path in photos.rglob("face-*"))
    one, two = photos.parent / "one.txt", photos.parent / "two.txt"  # the template starts at the list's folder
    one.write_text("\n".join(listed[:20]))
    score(tmp_path / "tables", one, flags=LENIENT)
    one.write_text("\n".join(listed[4:20]))
    mirrored = score(tmp_path / "tables", one, flags=(*LENIENT, *REMOVE))
    assert count(mirrored.run) == {REMOVED: 4, UNCHANGED: 16}
    two.write_text("\n".join(listed[20:30]))
    added = score(tmp_path / "tables", two, flags=(*LENIENT, *REMOVE))
    assert count(added.run) == {ADDED: 10, OUTSIDE: 16}
    assert images(added.table(PREDICTIONS)) == set(listed[4:30])


def test_an_image_that_moves_to_another_partition_is_in_one_only(score, tmp_path):
    (tmp_path / "a.png").write_bytes(solid_image(50))
    manifest = tmp_path / "images.csv"
    keyed = ("--set", "source.keys=[site]", *LENIENT)
    for site in ("north", "south"):
        manifest.write_text(f"uri,site\n{tmp_path / 'a.png'},{site}\n")
        output = score(tmp_path / "tables", manifest, flags=keyed, template=None)
        assert output.table(PREDICTIONS)["site"].to_pylist() == [site]
    assert count(output.run) == {CHANGED: 1}


def test_another_model_scores_what_is_there_and_keeps_rows_of_what_is_gone(photos, score, first_run, tmp_path):
    before = first_run(tmp_path / "tables", photos, flags=LENIENT)
    gone = sorted(photos.rglob("face-*"))[:5]
    for path in gone:
        path.unlink()
    strict = ("--set", "imaging.jpeg_draft=false")  # another way of scoring, as another model is
    after = score(tmp_path / "tables", photos, flags=(*LENIENT, *strict))
    assert after.run.images_scored_now == after.run.images.listed - after.run.images.skipped
    assert images(after.table(PREDICTIONS)) == images(before.table(PREDICTIONS))
    again = score(tmp_path / "tables", photos, flags=(*LENIENT, *strict))
    assert again.run.images_scored_now == 0
    assert again.contents() == after.contents()


def test_other_thresholds_label_stored_probabilities_and_read_no_image(photos, score, first_run, tmp_path):
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    for path in sorted(photos.rglob("face-*"))[:5]:
        path.unlink()
    strict = ("--set", "model.no_mask_below=0.3", "--set", "model.mask_from=0.9", "--set", "model.incorrect_odds=1")
    after = score(tmp_path / "tables", photos, flags=(*LENIENT, *strict))
    assert after.code == 0
    assert after.run.images_scored_now == 0
    table = after.table(PREDICTIONS)
    mask, incorrect = (
        table[f"probability_{name}"].fill_null(0).to_numpy().astype(float) for name in ("mask", "incorrect")
    )
    share = read_manifest("builtin").decision.incorrect_from
    worn = mask + incorrect
    kinds = np.where(incorrect >= share * worn, "incorrect", "mask")
    expected = np.where(worn >= 0.9, kinds, np.where(worn < 0.3, "no_mask", "uncertain")).tolist()
    assert table["label"].to_pylist() == expected
    total = pc.sum(pc.equal(table["label"], "mask")).as_py()
    [row] = [row for row in after.table(COMPLIANCE).to_pylist() if row["level"] == "all"]
    assert row["faces_mask"] == total


def test_keys_time_zone_and_partitions_have_to_agree(photos, score, first_run, tmp_path, capfd):
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    before = files(tmp_path / "tables")
    for change in (("--set", "source.timezone=Europe/Berlin"), ("--set", "tables.partition_by=[site]")):
        assert score(tmp_path / "tables", photos, flags=(*LENIENT, *change)).code == 8
        assert "--overwrite" in capfd.readouterr().err
        assert files(tmp_path / "tables") == before
    anew = score(tmp_path / "tables", photos, flags=(*LENIENT, "--set", "tables.partition_by=[site]", "--overwrite"))
    fresh = score(tmp_path / "fresh", photos, flags=(*LENIENT, "--set", "tables.partition_by=[site]"))
    assert files(anew.folder) == files(fresh.folder)


def test_overwriting_begins_anew(photos, days, score, first_run, tmp_path):
    first_run(tmp_path / "tables", days[0], flags=LENIENT)
    anew = score(tmp_path / "tables", days[1], flags=(*LENIENT, "--overwrite"))
    fresh = score(tmp_path / "fresh", days[1], flags=LENIENT)
    assert count(anew.run) == {ADDED: anew.run.images.listed}
    assert files(anew.folder) == files(fresh.folder)


def test_lost_rows_of_images_that_are_gone_are_not_passed_over(photos, score, first_run, tmp_path, capfd):
    flags = (*LENIENT, "--set", "packing.max_images=1000")
    first_run(tmp_path / "tables", photos, flags=flags)
    victim = sorted(photos.rglob("face-*"))[0]
    neighbour = sorted(victim.parent.rglob("face-*"))[1]
    victim.unlink()
    neighbour.write_bytes(solid_image(99))
    for path in (tmp_path / "tables" / "_files" / PREDICTIONS).rglob("*.pq"):
        path.unlink()
    assert score(tmp_path / "tables", photos, flags=flags).code == 8
    assert "Restore them below _files" in capfd.readouterr().err
    mended = score(tmp_path / "tables", photos, flags=(*flags, *REMOVE))
    fresh = score(tmp_path / "fresh", photos, flags=flags)
    assert files(mended.folder) == files(fresh.folder)


def test_a_run_that_cannot_tell_what_is_gone_is_refused_and_may_begin_anew(photos, score, first_run, tmp_path, capfd):
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    before = files(tmp_path / "tables")
    next((tmp_path / "tables" / "_files" / "images").rglob("*.pq")).unlink()
    assert score(tmp_path / "tables", photos, flags=LENIENT).code == 8
    assert "begin the tables anew with --overwrite" in capfd.readouterr().err
    assert files(tmp_path / "tables") == before
    assert score(tmp_path / "tables", photos, flags=(*LENIENT, "--overwrite")).code == 0
    assert files(tmp_path / "tables") == before


def test_the_summary_says_what_became_of_the_data_set(photos, days, score, tmp_path, capfd):
    size = score(tmp_path / "tables", days[0], flags=LENIENT).run.dataset.listed
    assert "data set" not in capfd.readouterr().out
    second = score(tmp_path / "tables", days[1], flags=LENIENT)
    text = capfd.readouterr().out
    assert f"  data set  {second.run.dataset.listed} images: {second.run.images.listed} added, " in text
    assert f"{size} of earlier runs beyond this input" in text


def test_a_dry_run_counts_what_earlier_runs_left(photos, days, score, first_run, tmp_path, capfd):
    first_run(tmp_path / "tables", days[0], flags=LENIENT)
    capfd.readouterr()
    code = score(tmp_path / "tables", days[0], flags=(*LENIENT, "--dry-run")).code
    shown = capfd.readouterr().out
    total = len(list((tmp_path / "tables" / "_shards").rglob("*.json")))
    assert code == 0
    assert f"shards      {total}, of which {total} are finished already" in shown


def planned(shown):
    """The images line of a dry run as numbers, and its data set line."""
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith("  ") and line.split()}
    listed, *parts = (int(word.replace(",", "")) for word in re.findall(r"[\d,]*\d", lines["images"]))
    assert listed == sum(parts)
    return [listed, *parts], lines.get("data", "").removeprefix("  data set    ")


def test_a_dry_run_over_tables_tells_apart_what_is_new_unchanged_and_gone(
    photos, days, score, first_run, tmp_path, capfd
):
    def dry(*flags):
        capfd.readouterr()
        assert score(tmp_path / "tables", photos, flags=(*LENIENT, *flags, "--dry-run")).code == 0
        return planned(capfd.readouterr().out)

    before = first_run(tmp_path / "tables", photos, flags=LENIENT).run
    misfits = before.failed_by_code.get("path_mismatch", 0)
    skipped, readable = before.images.skipped, before.images.listed - before.images.skipped - misfits
    assert dry()[0] == [before.images.listed, 0, readable, misfits, skipped]
    first, changed, *_ = faces_of(photos, days[0])
    first.unlink()
    changed.write_bytes(solid_image(50))
    for name in ("x", "y", "z"):
        changed.with_name(f"face-{name}.png").write_bytes(solid_image(ord(name)))
    (photos / "notes.txt").write_text("no image")
    counts, text = dry()
    assert counts == [before.images.listed + 3, 3 + 1, readable - 2, misfits, skipped + 1]
    total = readable + misfits + 3
    assert text == (
        f"would be {total} images: 3 added, 1 changed, {total - 3 - 1 - 1} unchanged, 1 gone whose rows stay"
    )
    assert dry(*REMOVE)[1].endswith(
        f"would be {total - 1} images: 3 added, 1 changed, {total - 5} unchanged, 1 gone whose rows would go"
    )
    made = score(tmp_path / "tables", photos, flags=LENIENT).run
    assert (made.images.listed, made.images_scored_now, made.dataset.listed) == (counts[0], counts[1], total)
    assert f"{total} images: 3 added, 1 changed, {total - 5} unchanged, 1 gone" in capfd.readouterr().out


def test_a_dry_run_says_what_a_run_would_be_refused_for(photos, days, score, first_run, tmp_path, capfd):
    first_run(tmp_path / "tables", photos, flags=LENIENT)
    for path in faces_of(photos, days[0]):
        path.unlink()
    flags = (*LENIENT, *REMOVE, "--set", "tables.max_gone_ratio=0.01")
    capfd.readouterr()
    assert score(tmp_path / "tables", photos, flags=(*flags, "--dry-run")).code == 0
    said = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("  refused"))
    assert "exit code 8" in said
    refused = score(tmp_path / "tables", photos, flags=flags)
    assert refused.code == 8
    assert refused.run.reason in said


def test_a_dry_run_with_another_model_scores_all_that_is_listed(photos, days, score, first_run, tmp_path, capfd):
    before = first_run(tmp_path / "tables", days[0], flags=LENIENT).run
    faces_of(photos, days[0])[0].unlink()
    capfd.readouterr()
    flags = (*LENIENT, "--set", "imaging.jpeg_draft=false", "--dry-run")
    assert score(tmp_path / "tables", days[0], flags=flags).code == 0
    (listed, to_score, kept, unreadable, skipped), text = planned(capfd.readouterr().out)
    assert (listed, kept) == (before.images.listed - 1, 0)
    assert to_score == listed - unreadable - skipped > 0
    assert text.endswith(f"{listed - skipped} unchanged, 1 gone whose rows stay")


def test_keys_are_columns_of_the_files_themselves(photos, score, first_run, tmp_path):
    output = first_run(tmp_path / "tables", photos, flags=LENIENT)
    table = output.table(PREDICTIONS)
    assert table.schema.field("site").type == pa.string()
    assert table.schema.field("date").type == pa.date32()
    assert DEMO_TEMPLATE.startswith("{site}/")
    assert {uri.removeprefix(f"{photos}/").split("/")[0] for uri in table["image_uri"].to_pylist()} == set(
        table["site"].to_pylist()
    )
