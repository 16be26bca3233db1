import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from maskdet.demo.drawing import draw_face
from maskdet.images.preprocessing import prepare_image
from maskdet.training import reading
from maskdet.training.reading import drawn_face_uri, is_drawn, read_views


class Halves:
    """Two views of a file: its mean colour, and its index; picklable, as views that processes make have to be."""

    def __call__(self, data, index):
        mean = prepare_image(data, 4, 4).pixels.mean(axis=(0, 1)).astype(np.uint8)
        return np.stack([np.broadcast_to(mean, (4, 4, 3)), np.full((4, 4, 3), index, np.uint8)])


@pytest.fixture
def files(tmp_path):
    """Twenty files of one colour each, the eighth of them damaged and the last one missing."""
    places = []
    for number in range(20):
        path = tmp_path / f"{number:02d}.png"
        Image.new("RGB", (9, 9), (number * 10, 7, 255 - number)).save(path)
        places.append(path)
    places[7].write_bytes(b"no image")
    places[19].unlink()
    return places


@pytest.mark.parametrize("in_processes", [False, True])
def test_views_come_in_the_files_order_whoever_makes_them(files, in_processes, monkeypatch):
    monkeypatch.setattr(reading, "_MIN_VIEWS_FOR_PROCESSES", 1 if in_processes else 10**9)
    read = list(read_views([str(path) for path in files], 4, 4, 2, Halves()))
    assert len(read) == 20
    for number, (path, found) in enumerate(zip(files, read, strict=True)):
        if number in (7, 19):
            assert (found.views, found.content_sha256) == (None, "")
            assert found.problem
            continue
        assert found.content_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert found.problem == ""
        assert found.views[0, 0, 0].tolist() == [number * 10, 7, 255 - number]
        assert np.unique(found.views[1]).tolist() == [number]


def test_a_drawn_face_is_what_its_seed_draws():
    uri = drawn_face_uri(5, 3, masked=True)
    assert is_drawn(uri)
    assert not is_drawn("/data/drawn.png")
    rng = np.random.default_rng([5, 2, 3])
    face = draw_face(rng, int(rng.integers(64, 224)), masked=True)
    file = io.BytesIO()
    face.save(file, "BMP")
    (read,) = read_views([uri], 30, 30, 1, None)
    assert read.content_sha256 == hashlib.sha256(file.getvalue()).hexdigest()
    np.testing.assert_array_equal(read.views[0], prepare_image(file.getvalue(), 30, 30).pixels)
