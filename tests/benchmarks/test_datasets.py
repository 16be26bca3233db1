"""The folders that contestants score."""

from pathlib import Path

from benchmarks.datasets import build, few, resolve, spread_over


def paths(*names):
    return [Path(name) for name in names]


def test_sources_are_used_equally_often():
    sources = paths("a", "b", "c")
    assert spread_over(sources, 7) == paths("a", "b", "c", "a", "b", "c", "a")
    assert spread_over(sources, 2) == paths("a", "b")
    assert spread_over(paths("a", "b", "c", "d"), 2) == paths("a", "c")  # both halves of a sorted list, not the first


def test_a_folder_holds_so_many_images_with_names_of_their_own(tmp_path):
    source = tmp_path / "data" / "k12" / "Train" / "WithMask"
    source.mkdir(parents=True)
    for name in ("1.JPG", "2.jpg", "notes.txt"):
        (source / name).write_bytes(name.encode())
    folder = build("jpeg", 5, tmp_path / "data", tmp_path / "work")
    held = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(held) == [f"{index:07d}.jpg" for index in range(5)]
    assert sorted(held.values()) == [b"1.JPG"] * 3 + [b"2.jpg"] * 2
    assert {path.name for path in few(folder, 2, tmp_path / "few").iterdir()} == {"0000000.jpg", "0000001.jpg"}


def test_faces_are_drawn_where_photographs_are_absent(tmp_path):
    (tmp_path / "k12" / "Train").mkdir(parents=True)
    assert resolve("jpeg", tmp_path) == "jpeg"
    assert resolve("png", tmp_path) == "drawn"
    assert resolve("drawn", tmp_path) == "drawn"
