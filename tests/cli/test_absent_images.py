"""Images that a list names but that are gone: their rows stay, as a folder's do, and every count of them says so."""

from __future__ import annotations

import re
import shutil

import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from maskdet.cli.main import main
from maskdet.cli.report import main as report
from maskdet.inputs.earlier import ABSENT, ADDED, CHANGED, REMOVED, UNCHANGED
from maskdet.model.bundle import BUILTIN_FOLDER, MANIFEST_FILE
from maskdet.model.manifest import Manifest
from maskdet.tables.layout import FAILURES, PREDICTIONS
from maskdet.testing import solid_image
from tests.video.clips import film, numbered

RUNNERS = {
    "one worker": (),
    "threads": ("--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_threading"),
    "processes": ("--runner=FnApiRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"),
}
OTHER_WAY = ("--set", "imaging.jpeg_draft=false")  # another way of scoring, as another version's is
REMOVE = ("--set", "tables.on_gone=remove")
IMAGES, GONE = 10, 3


@pytest.fixture
def photos(tmp_path):
    """Ten images, bright ones and dark ones, and the list that names them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{number}.png" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        path.write_bytes(solid_image(20 * number))
    return paths


@pytest.fixture(params=["names alone", "versions that are believed"])
def listed(request, photos, tmp_path):
    """A list of names alone, or with versions: the store is then not asked before an image is read."""
    path, rows = tmp_path / "images.csv", [f"{path},v1" for path in photos]
    path.write_text("\n".join(["uri,version", *rows]))
    return path, ("--set", "source.version_column=version") if "versions" in request.param else ()


@pytest.fixture
def scored(listed, score, tmp_path):
    """Runs over the list, to the same output."""
    path, flags = listed
    return lambda *more, to="tables": score(tmp_path / to, path, flags=(*flags, *more), template=None)


def remove(paths):
    for path in paths:
        path.unlink()


def predictions(output):
    return {row["image_uri"]: row for row in output.table(PREDICTIONS).to_pylist()}


def test_rows_of_images_that_a_list_still_names_stay(photos, scored):
    before = scored()
    assert before.run.changes == {ADDED: IMAGES}
    remove(photos[:GONE])
    after = scored()
    assert (after.code, after.run.images_scored_now) == (0, 0)
    assert after.contents() == before.contents()
    assert after.run.images == before.run.images


def test_another_way_of_scoring_reads_what_is_there_and_keeps_the_rows_of_what_is_not(photos, scored, capfd):
    before = predictions(scored())
    remove(photos[:GONE])
    for _ in range(2):
        after = scored(*OTHER_WAY)
        assert after.code == 0
        assert predictions(after) == before
        assert after.run.changes == {ABSENT: GONE, UNCHANGED: IMAGES - GONE}
        assert (after.run.images.listed, after.run.images.scored, after.run.images.failed) == (IMAGES, IMAGES, 0)
        assert f"{GONE} named by the input, not there, whose rows stay" in capfd.readouterr().out


def test_a_mirror_of_the_input_has_failures_in_their_place(photos, scored, request):
    scored()
    remove(photos[:GONE])
    after = scored(*OTHER_WAY, *REMOVE, "--set", "failure_budget.max_ratio=0.5")
    assert after.code == 0
    assert predictions(after).keys() == {str(path) for path in photos[GONE:]}
    assert after.table(FAILURES)["code"].to_pylist() == ["not_found"] * GONE
    assert ABSENT not in after.run.changes
    assert after.run.changes == {REMOVED: GONE, UNCHANGED: IMAGES - GONE}
    # Their rows were removed once. The next run finds none to remove, however often it looks for the images.
    again = scored(*OTHER_WAY, *REMOVE, "--set", "failure_budget.max_ratio=0.5")
    assert again.run.changes == {UNCHANGED: IMAGES}
    assert again.contents() == after.contents()


@pytest.fixture(params=RUNNERS)
def runner(request):
    """Flags of a runner, or of several workers."""
    return RUNNERS[request.param]


def test_a_mirror_that_would_lose_most_rows_is_refused(photos, scored, runner, capfd):
    """Also where the list gives versions, so that only reading an image shows that it is gone."""
    before = scored()
    remove(photos[:6])
    lenient = ("--set", "failure_budget.max_ratio=1.0")
    for _ in range(2):  # a run that was refused makes no difference to the next
        after = scored(*OTHER_WAY, *REMOVE, *lenient, *runner)
        assert (after.code, after.run.status) == (8, "shrunk")
        assert after.run.changes == {REMOVED: 6, UNCHANGED: 4}
        assert after.contents() == before.contents()
    shown = capfd.readouterr()
    assert "expected to lose the rows of at most 0.5 of the 10 images" in shown.err
    # The summary tells the truth about the tables, which stay as they were.
    assert "data set  stays as it was; would be " in shown.out and "6 gone whose rows would go" in shown.out
    assert "whose rows went" not in shown.out
    # Where the loss is intended, a higher ratio permits it, and the record has the number.
    meant = scored(*OTHER_WAY, *REMOVE, *lenient, "--set", "tables.max_gone_ratio=0.6")
    assert (meant.code, meant.run.changes) == (0, {REMOVED: 6, UNCHANGED: 4})
    assert predictions(meant).keys() == {str(path) for path in photos[6:]}


@pytest.fixture
def with_versions(photos, score, tmp_path):
    """Runs over a list in which all images have one version and one site."""

    def run(version, *more, site="north"):
        path = tmp_path / "images.csv"
        path.write_text("\n".join(["uri,version,site", *(f"{photo},{version},{site}" for photo in photos)]))
        lenient = ("--set", "source.keys=[site]", "--set", "failure_budget.max_ratio=1.0")
        return score(tmp_path / "tables", path, flags=(*lenient, *more), template=None)

    return run


BELIEVED = ("--set", "source.version_column=version")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"version": "v1", "more": BELIEVED}, {"version": "v2"}),
        ({"version": "v1", "more": BELIEVED}, {"version": "v1", "site": "south"}),
        ({"version": "v1", "more": BELIEVED}, {"version": "v2", "site": "south"}),
        ({"version": "v1", "more": ()}, {"version": "v1"}),  # the list's versions were not read so far
    ],
)
def test_images_that_are_said_to_have_changed_and_are_not_there_keep_their_rows(photos, with_versions, first, then):
    before = with_versions(first["version"], *first["more"])
    gone = {str(photo) for photo in photos[:6]}
    rows = {uri: row for uri, row in predictions(before).items() if uri in gone}
    remove(photos[:6])
    for more in ((), OTHER_WAY):
        after = with_versions(then["version"], *BELIEVED, *more, site=then.get("site", "north"))
        assert (after.code, after.run.status, after.run.changes[ABSENT]) == (0, "succeeded", 6)
        assert after.run.images.failed == 0
        assert {uri: row for uri, row in predictions(after).items() if uri in gone} == rows
        assert {row["site"] for uri, row in predictions(after).items() if uri not in gone} == {
            then.get("site", "north")
        }
    photos[0].write_bytes(solid_image(200))
    back = with_versions(then["version"], *BELIEVED, site=then.get("site", "north"))
    assert (back.code, back.run.changes[ABSENT]) == (0, 5)
    assert predictions(back)[str(photos[0])] != rows[str(photos[0])]


def test_images_that_are_said_to_have_changed_and_are_not_there_count_among_the_removed(photos, with_versions, capfd):
    before = with_versions("v1", *BELIEVED, *REMOVE)
    remove(photos[:6])
    after = with_versions("v2", *BELIEVED, *REMOVE)
    assert (after.code, after.run.status, after.run.changes) == (8, "shrunk", {REMOVED: 6, CHANGED: 4})
    assert after.contents() == before.contents()
    assert "max_gone_ratio" in capfd.readouterr().err
    meant = with_versions("v2", *BELIEVED, *REMOVE, "--set", "tables.max_gone_ratio=0.6")
    assert (meant.code, meant.run.changes) == (0, {REMOVED: 6, CHANGED: 4})
    assert meant.table(FAILURES)["code"].to_pylist() == ["not_found"] * 6
    # What has no rows has none to lose.
    assert with_versions("v3", *BELIEVED, *REMOVE).run.changes == {CHANGED: IMAGES}


def test_failures_of_before_do_not_hide_that_nothing_is_there(photos, score, tmp_path):
    path, lenient = tmp_path / "names.txt", ("--set", "failure_budget.max_ratio=0.5")
    path.write_text("\n".join(map(str, photos)))
    remove(photos[:GONE])
    before = score(tmp_path / "tables", path, flags=lenient, template=None)
    assert before.run.failed_by_code == {"not_found": GONE}
    remove(photos[GONE:])
    after = score(tmp_path / "tables", path, flags=lenient, template=None)
    assert (after.code, after.run.status) == (3, "empty")
    assert after.contents() == before.contents()


def test_an_image_that_was_never_there_fails_each_time(photos, scored):
    remove(photos[:GONE])
    lenient = ("--set", "failure_budget.max_ratio=0.5")
    for flags in (lenient, lenient, (*lenient, *OTHER_WAY)):
        output = scored(*flags)
        assert output.run.failed_by_code == {"not_found": GONE}
        assert ABSENT not in output.run.changes


def test_one_that_is_back_is_scored_again(photos, scored):
    scored()
    held = photos[0].read_bytes()
    remove(photos[:1])
    scored(*OTHER_WAY)
    photos[0].write_bytes(held)
    after = scored(*OTHER_WAY)
    assert ABSENT not in after.run.changes
    assert after.run.images_scored_now >= 1
    assert after.contents() == scored(*OTHER_WAY, to="fresh").contents()


def test_where_nothing_is_there_the_tables_stay_as_they_are(photos, scored, capfd):
    before = scored()
    remove(photos)
    after = scored(*OTHER_WAY)
    assert after.code != 0
    assert after.run.status == "empty"
    assert f"of all {IMAGES} that it names nothing is there" in capfd.readouterr().err
    assert after.contents() == before.contents()


@pytest.mark.parametrize("versions_again", [True, False])
def test_an_image_that_was_never_there_does_not_hide_that_nothing_is(photos, score, tmp_path, versions_again):
    path = tmp_path / "images.csv"
    path.write_text("\n".join(["uri,version", *(f"{photo},v1" for photo in photos), f"{tmp_path / 'never.png'},v1"]))
    any_failures = ("--set", "failure_budget.max_ratio=1")
    believed = ("--set", "source.version_column=version", *any_failures)
    before = score(tmp_path / "tables", path, flags=believed, template=None)
    assert (before.code, before.run.failed_by_code) == (0, {"not_found": 1})
    remove(photos[:1])
    flags = believed if versions_again else any_failures
    one_less = score(tmp_path / "tables", path, flags=flags, template=None)
    assert one_less.run.changes.get(ABSENT, 0) == (0 if versions_again else 1)  # a version that is believed is not read
    remove(photos[1:])
    after = score(tmp_path / "tables", path, flags=(*flags, *OTHER_WAY), template=None)
    assert after.run.status == "empty"
    assert after.contents() == one_less.contents()


def test_a_video_that_a_list_still_names_keeps_its_segments(photos, score, tmp_path):
    video = film(tmp_path / "a.mp4", [numbered(number) for number in range(100)])
    path, cut = tmp_path / "list.txt", ("--set", "video.segment_seconds=2")
    path.write_text(f"{photos[0]}\n{video}\n")
    before = score(tmp_path / "tables", path, flags=cut, template=None)
    assert before.run.videos.segments > 1
    held = before.contents()
    video.unlink()
    for flags in (cut, (*cut, *OTHER_WAY)):
        after = score(tmp_path / "tables", path, flags=flags, template=None)
        assert (after.code, after.run.changes) == (0, {ABSENT: 1, UNCHANGED: 1})
        assert after.run.videos == before.run.videos
        assert after.contents() == held


def told(output, tmp_path):
    """Numbers of images in the metrics by how the run found them, and in the report of those that it did not find."""
    file, page = tmp_path / "m.prom", tmp_path / "page.html"
    assert main(["status", str(output.folder), "--metrics", str(file)]) == output.code
    found = {
        sample.labels["change"]: sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
        if sample.name == "maskdet_run_changed_images"
    }
    assert main(["report", str(output.folder), "--output", str(page)]) == 0
    unseen = re.findall(r'data-of="unseen\.(\w+)" value="(\d+)">', page.read_text())
    return found, {change: int(number) for change, number in unseen}


CHANGES = ["added", "changed", "unchanged", "gone", "absent", "removed", "displaced", "lost", "outside"]


def test_metrics_and_report_say_that_images_are_not_there(photos, scored, tmp_path):
    assert told(scored(), tmp_path) == ({**dict.fromkeys(CHANGES, 0), "added": IMAGES}, {})
    remove(photos[:GONE])
    output = scored(*OTHER_WAY)
    expected = {**dict.fromkeys(CHANGES, 0), "absent": GONE, "unchanged": IMAGES - GONE}
    assert told(output, tmp_path) == (expected, {"absent": GONE})
    # A prune looks for no image, so it finds none missing: the report keeps the numbers of the run that scored.
    assert main(["prune", str(output.folder), "--before", "2000-01-01"]) == 0
    assert told(output, tmp_path) == ({}, {"absent": GONE})


def test_they_say_so_of_images_gone_from_a_folder(photos, score, tmp_path):
    score(tmp_path / "tables", photos[0].parent, template=None)
    remove(photos[:GONE])
    output = score(tmp_path / "tables", photos[0].parent, template=None)
    expected = {**dict.fromkeys(CHANGES, 0), "gone": GONE, "unchanged": IMAGES - GONE}
    assert told(output, tmp_path) == (expected, {"gone": GONE})


@pytest.fixture
def other_model(tmp_path):
    """A bundle of the same network under another name: another model, as far as rows can tell."""
    folder = tmp_path / "other"
    shutil.copytree(BUILTIN_FOLDER, folder)
    manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_text()).model_copy(update={"name": "other"})
    sealed = manifest.model_copy(update={"fingerprint": manifest.computed_fingerprint()})
    (folder / MANIFEST_FILE).write_text(sealed.model_dump_json())
    return folder, sealed.model_id


def test_faces_of_one_model_are_not_corrected_by_the_errors_of_another(photos, score, other_model, tmp_path):
    """Groups that the last model alone has seen are, and so are those of an output that it has seen as a whole."""
    path = tmp_path / "images.csv"
    path.write_text("\n".join(["uri,site", *(f"{photo},{'ab'[number > 4]}" for number, photo in enumerate(photos))]))
    flags = ("--set", "source.keys=[site]", "--set", "compliance.levels={site: [site]}")

    def refused(*more):
        output = score(tmp_path / "tables", path, flags=(*flags, *more), template=None)
        rows = pq.read_table(output.folder / "compliance" / "level=site").to_pylist()
        return {row["site"]: row["correction_refused"] for row in rows if row["site"]}

    assert refused() == {"a": None, "b": None}
    held = photos[0].read_bytes()
    photos[0].unlink()
    found = refused("--model", str(other_model[0]))
    assert found["b"] is None and "another model" in found["a"]
    assert main(["prune", str(tmp_path / "tables"), "--before", "2000-01-01"]) == 0  # counts anew, and as before
    rows = pq.read_table(tmp_path / "tables" / "compliance" / "level=site").to_pylist()
    assert {row["site"]: row["correction_refused"] for row in rows if row["site"]} == found
    photos[0].write_bytes(held)
    assert refused("--model", str(other_model[0])) == {"a": None, "b": None}


def test_summary_record_and_report_say_how_many_faces_are_of_which_model(photos, scored, other_model, tmp_path, capfd):
    earlier = scored().run
    before = earlier.model["id"]
    assert earlier.faces_by_model == {before: IMAGES}
    assert "  models " not in capfd.readouterr().out
    remove(photos[:GONE])
    folder, name = other_model
    output = scored("--model", str(folder))
    assert output.run.faces_by_model == {before: GONE, name: IMAGES - GONE}
    told = f"  models    {IMAGES - GONE} faces of {name}, {GONE} of {before}, of images not read since\n"
    assert told in capfd.readouterr().out
    assert report([str(output.folder), "--output", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert 'data-of="corrected.share"' not in page and "uncorrected for its errors" in page
    assert f"<dt>Earlier models</dt><dd>{GONE} faces are of {before}: " in page
