"""The synthetic faces and the demo tree: they show what they claim, and stay the same."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from maskdet.cli import demo
from maskdet.demo.faces import DemoCell, DemoFile, DemoTree, draw_face, redraw, write_demo_tree
from maskdet.errors import ConfigError, FailureCode, ImageFault, MaskdetError, OutputError, StorageError
from maskdet.images.preprocessing import prepare_image

SEED = 7
FITTING_PATH = re.compile(r"demo-[a-z]+/cam-\d/\d{4}-\d{2}-\d{2}/\d{2}/[^/]+")
BROKEN = {
    "fault-truncated.jpg": FailureCode.CORRUPT_IMAGE,
    "fault-empty.jpg": FailureCode.EMPTY_FILE,
    "fault-text.jpg": FailureCode.NOT_AN_IMAGE,
    "fault-flipped-bytes.png": FailureCode.CORRUPT_IMAGE,
    "fault-oversized.png": FailureCode.TOO_MANY_PIXELS,
    "fault-tiny.png": FailureCode.TOO_FEW_PIXELS,
    "fault-float-samples.tif": FailureCode.UNSUPPORTED_MODE,
}


def small_tree(folder: Path, seed: int = SEED, days: int = 1) -> DemoTree:
    return write_demo_tree(folder, seed=seed, cameras_per_site=1, days=days, hours=(8, 19), images_per_hour=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoTree]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_demo_tree(folder, seed=SEED, cameras_per_site=1, days=1, images_per_hour=10)


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def find(tree: DemoTree, fragment: str) -> DemoFile:
    [file] = [file for file in tree.files if fragment in file.path]
    return file


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Mean absolute difference in levels of 255."""
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size_px", [16, 65, 128, 400])
def test_a_face_has_the_size_asked_for(size_px: int, masked: bool) -> None:
    face = draw_face(np.random.default_rng(1), size_px, masked)
    assert face.mode == "RGB"
    assert face.size == (size_px, size_px)


def test_a_face_too_small_to_show_anything_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 16 pixels, received 15"):
        draw_face(np.random.default_rng(1), 15, masked=True)


@pytest.mark.parametrize("masked", [True, False])
def test_equal_generators_draw_equal_faces_and_others_do_not(masked: bool) -> None:
    first, again, other = (np.asarray(draw_face(np.random.default_rng(seed), 96, masked)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert difference(first, other) > 10


def test_one_generator_draws_different_faces() -> None:
    rng = np.random.default_rng(5)
    assert difference(np.asarray(draw_face(rng, 96, True)), np.asarray(draw_face(rng, 96, True))) > 10


@pytest.mark.parametrize("seed", range(16))
def test_a_mask_changes_the_lower_face_and_nothing_else(seed: int) -> None:
    bare, masked = (
        np.asarray(draw_face(np.random.default_rng(seed), 128, masked)).astype(int) for masked in (False, True)
    )
    change = np.abs(bare - masked).max(axis=2)
    rows, columns = np.nonzero(change > 24)
    # Between the eyes (heads are centred at .46 to .53) and under the chin (at most .36 further down, and the beard).
    assert rows.min() / 128 > 0.40
    assert rows.max() / 128 < 0.98
    height, width = np.ptp(rows) / 128, np.ptp(columns) / 128
    assert 0.25 < height < 0.52
    assert 0.30 < width < 0.70
    assert change[:38].max() == 0
    middle = change[rows.min() : rows.max(), columns.min() : columns.max()]
    assert np.mean(middle > 8) > 0.55


def test_skin_tones_span_dark_to_light() -> None:
    foreheads = [
        float(np.asarray(draw_face(np.random.default_rng(seed), 64, False).convert("L"))[22:38, 26:38].mean())
        for seed in range(60)
    ]
    assert np.percentile(foreheads, 10) < 70
    assert np.percentile(foreheads, 90) > 150


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = small_tree(tmp_path / "a"), small_tree(tmp_path / "b")
    assert first == second
    assert read_all(tmp_path / "a") == read_all(tmp_path / "b")


def test_another_seed_draws_every_picture_anew(tmp_path: Path) -> None:
    first, other = small_tree(tmp_path / "a"), small_tree(tmp_path / "b", seed=SEED + 1)
    drawn = {file.path for file in first.files if file.size_px} & {file.path for file in other.files}
    before, after = read_all(tmp_path / "a"), read_all(tmp_path / "b")
    assert len(drawn) > 15
    assert all(before[path] != after[path] for path in drawn)


def test_a_second_write_leaves_every_file_alone(tmp_path: Path) -> None:
    first = small_tree(tmp_path)
    times_ns = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = small_tree(tmp_path)
    assert (first.written, second.written) == (len(first.files), 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times_ns
    assert second == first


def test_a_file_that_was_changed_is_written_again(tmp_path: Path) -> None:
    tree = small_tree(tmp_path)
    path = tmp_path / find(tree, "face-bitmap").path
    expected = path.read_bytes()
    path.write_bytes(b"something else")
    assert small_tree(tmp_path).written == 1
    assert path.read_bytes() == expected


def test_a_longer_tree_adds_files_and_changes_none(tmp_path: Path) -> None:
    small_tree(tmp_path)
    before = read_all(tmp_path)
    longer = small_tree(tmp_path, days=2)
    after = read_all(tmp_path)
    assert longer.written == len(after) - len(before) == 2 * 2 * 3
    assert {path: after[path] for path in before} == before


def test_a_folder_with_other_images_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"received 'holiday.jpg'\. 1 such files; choose an empty folder"):
        small_tree(tmp_path)
    assert read_all(tmp_path) == {"holiday.jpg": b"mine"}


def test_a_folder_that_cannot_be_made_is_the_callers_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"cannot be written: (Not a directory|File exists)$"):
        small_tree(tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"sites": 0}, "sites"),
        ({"cameras_per_site": 0}, "cameras_per_site"),
        ({"days": -1}, "days"),
        ({"images_per_hour": 0}, "images_per_hour"),
        ({"seed": -1}, "seed"),
        ({"hours": ()}, "hours"),
        ({"hours": (8, 24)}, "hours"),
        ({"hours": (8, 8)}, "hours"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, object], name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        write_demo_tree(tmp_path / "demo", **arguments)  # type: ignore[arg-type]
    assert caught.value.what == name
    assert not (tmp_path / "demo").exists()


def test_counts_are_those_of_the_files_on_disk(written: tuple[Path, DemoTree]) -> None:
    folder, tree = written
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert [file.path for file in tree.files] == sorted(read_all(folder))
    assert tree.skipped == ("demo-north/cam-1/2026-03-02/08/notes.txt",)
    assert tree.images == len(names) - 1
    assert tree.masked == sum("-mask." in name and "no-mask" not in name for name in names)
    assert tree.unmasked == sum("-no-mask." in name for name in names)
    assert tree.images == tree.masked + tree.unmasked + sum(tree.failures.values())
    assert sum(tree.failures.values()) == len(BROKEN) + 1
    assert tree.failures[FailureCode.PATH_MISMATCH] == 1


def test_truth_counts_every_cell(written: tuple[Path, DemoTree]) -> None:
    folder, tree = written
    assert list(tree.truth) == sorted(tree.truth)
    assert len(tree.truth) == 2 * 4
    for cell, count in tree.truth.items():
        names = [path.name for path in (folder / cell.site / cell.camera / cell.date / f"{cell.hour:02d}").iterdir()]
        assert count.no_mask == sum("-no-mask." in name for name in names)
        assert count.mask == sum("-mask." in name for name in names) - count.no_mask
        assert count.failed == sum(name.startswith("fault-") for name in names)
    misplaced = tree.failures[FailureCode.PATH_MISMATCH]
    assert sum(sum(count) for count in tree.truth.values()) == tree.images - misplaced


def test_only_the_stray_image_does_not_fit_the_template(written: tuple[Path, DemoTree]) -> None:
    _, tree = written
    misfits = [file for file in tree.files if not FITTING_PATH.fullmatch(file.path)]
    assert [(file.path, file.failure, file.cell) for file in misfits] == [
        ("demo-north/stray.jpg", FailureCode.PATH_MISMATCH, None)
    ]


def test_mask_rates_differ_by_site_and_drop_in_the_evening(written: tuple[Path, DemoTree]) -> None:
    _, tree = written

    def rate(site: str, evening: bool) -> float:
        counts = [count for cell, count in tree.truth.items() if (cell.site, cell.hour >= 18) == (site, evening)]
        return sum(count.mask for count in counts) / sum(count.mask + count.no_mask for count in counts)

    assert rate("demo-north", False) > rate("demo-south", False) + 0.1
    for site in ("demo-north", "demo-south"):
        assert rate(site, False) > rate(site, True) + 0.1


@pytest.mark.parametrize(("name", "code"), BROKEN.items())
def test_a_broken_file_fails_with_its_code(written: tuple[Path, DemoTree], name: str, code: FailureCode) -> None:
    folder, tree = written
    file = find(tree, name)
    assert (file.failure, file.masked) == (code, None)
    with pytest.raises(ImageFault) as caught:
        prepare_image((folder / file.path).read_bytes(), 96, 96)
    assert caught.value.code == code


def test_every_valid_file_prepares_at_its_size(written: tuple[Path, DemoTree]) -> None:
    folder, tree = written
    valid = [file for file in tree.files if file.masked is not None]
    assert len(valid) == tree.masked + tree.unmasked
    for file in valid:
        prepared = prepare_image((folder / file.path).read_bytes(), 96, 96)
        assert (prepared.width_px, prepared.height_px) == (file.size_px, file.size_px), file.path
        assert np.ptp(prepared.pixels) > 60, file.path


def test_the_tree_holds_every_format_and_pixel_mode(written: tuple[Path, DemoTree]) -> None:
    folder, tree = written
    kinds = set()
    for file in tree.files:
        if file.masked is not None:
            with Image.open(folder / file.path) as image:
                kinds.add((image.format, image.mode))
    assert kinds >= {
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("PNG", mode) for mode in ("RGB", "RGBA", "P", "L", "1", "I;16")),
        *((name, "RGB") for name in ("WEBP", "BMP", "TIFF")),
        ("GIF", "P"),
    }


def test_the_rotated_jpeg_is_upright(written: tuple[Path, DemoTree]) -> None:
    folder, tree = written
    file = find(tree, "face-exif-rotated")
    data = (folder / file.path).read_bytes()
    drawing = redraw(file, SEED)
    expected = np.asarray(drawing.resize((96, 96), Image.Resampling.BILINEAR))
    with Image.open(io.BytesIO(data)) as stored:
        as_stored = np.asarray(stored.convert("RGB").resize((96, 96), Image.Resampling.BILINEAR))
    assert difference(prepare_image(data, 96, 96).pixels, expected) < 3
    assert difference(as_stored, expected) > 15


@pytest.mark.parametrize("name", ["png-named-jpg", "lossless", "bitmap", "two-more-pages"])
def test_lossless_files_hold_the_drawing_exactly(written: tuple[Path, DemoTree], name: str) -> None:
    folder, tree = written
    file = find(tree, f"face-{name}-")
    pixels = prepare_image((folder / file.path).read_bytes(), file.size_px, file.size_px).pixels
    np.testing.assert_array_equal(pixels, np.asarray(redraw(file, SEED)))


def test_the_first_frame_of_the_animation_is_the_drawing(written: tuple[Path, DemoTree]) -> None:
    folder, tree = written
    file = find(tree, "face-animated")
    data = (folder / file.path).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert difference(prepare_image(data, 128, 128).pixels, np.asarray(redraw(file, SEED))) < 12


def test_the_large_jpeg_may_be_decoded_at_reduced_scale(written: tuple[Path, DemoTree]) -> None:
    folder, tree = written
    data = (folder / find(tree, "face-large").path).read_bytes()
    reduced, full = (prepare_image(data, 96, 96, jpeg_draft=draft).pixels for draft in (True, False))
    assert difference(reduced, full) < 3


def test_a_file_without_a_drawing_cannot_be_redrawn(written: tuple[Path, DemoTree]) -> None:
    _, tree = written
    with pytest.raises(ConfigError, match="size_px"):
        redraw(find(tree, "fault-empty"), SEED)


def test_more_than_four_sites_have_names_of_their_own(tmp_path: Path) -> None:
    tree = write_demo_tree(tmp_path, seed=SEED, sites=5, cameras_per_site=1, days=1, hours=(0,), images_per_hour=1)
    assert [cell.site for cell in tree.truth] == ["demo-east", "demo-north", "demo-north-2", "demo-south", "demo-west"]
    assert DemoCell("demo-north-2", "cam-1", "2026-03-02", 0) in tree.truth


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(tmp_path / "demo"), "--images-per-hour", "1", "--seed", "3"]
    assert demo.main(arguments) == 0
    summary = capsys.readouterr().out
    files = read_all(tmp_path / "demo")
    assert f"{len(files) - 1} synthetic images (drawings; no real person is shown)" in summary
    assert f"files written {len(files)}, already there 0" in summary
    assert "corrupt_image 2" in summary
    assert demo.main(arguments) == 0
    assert f"files written 0, already there {len(files)}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(["--seed", "-1"], ConfigError), (["--images-per-hour", "0"], ConfigError), ([], OutputError)],
)
def test_the_command_ends_with_the_errors_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: type[MaskdetError]
) -> None:
    (tmp_path / "other.png").write_bytes(b"mine")
    assert demo.main(["--output", str(tmp_path), *arguments]) == error.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("maskdet demo: ")
