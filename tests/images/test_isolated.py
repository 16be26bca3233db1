"""Decoders in processes of their own: the same pixels, and whatever happens there costs one image at most."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskdet import children
from maskdet.children import Children
from maskdet.errors import ConfigError, FailureCode, ImageFault
from maskdet.images import isolated
from maskdet.images.preprocessing import ImageLimits, decode_upright, open_upright, prepare_image
from tests.hostile.corpus import bases, corpus
from tests.images.faulty_decoder import ABORTS, EATS, LEAVES, PRINTS, RAISES, SLEEPS, SOUND, SPINS

FAULTY = (sys.executable, str(Path(__file__).with_name("faulty_decoder.py")))
HERE, APART = ImageLimits(), ImageLimits(isolated_s=20.0)


@pytest.fixture
def pool(monkeypatch):
    """A pool for this test alone."""
    own = Children()
    monkeypatch.setattr(isolated, "CHILDREN", own)
    yield own
    own.end()


@pytest.fixture
def faulty(pool, monkeypatch):
    """A pool whose children have the faulty decoder."""
    monkeypatch.setattr(children, "COMMAND", FAULTY)
    return pool


def bmp(blue, side=16):
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), (1, 2, blue), np.uint8)).save(stream, "BMP")
    return stream.getvalue()


def answer(data, limits):
    """Pixels, sizes and damage; or the failure."""
    try:
        upright = decode_upright(data, limits)
    except ImageFault as fault:
        return fault.code, fault.message
    return upright.image.tobytes(), upright.image.size, upright[1:]


def test_every_format_gives_the_same_pixels(pool):
    for kind, data in bases().items():
        assert answer(data, APART) == answer(data, HERE), kind


# Where tests turn warnings into errors, Pillow's would show in messages.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutants_end_the_same_way(pool):
    kinds = ("gif", "bmp", "webp", "tif", "avif", "heic")
    mutants = [one for one in corpus(31, 400) if one.kind.split()[0] in kinds]
    assert len(mutants) > 200
    different = [one.number for one in mutants if answer(one.data, APART) != answer(one.data, HERE)]
    assert different == []
    assert len(pool._idle) == 1  # in turn, they shared one process, which none of them ended


def test_jpegs_and_pngs_need_no_process(pool, monkeypatch):
    monkeypatch.setattr(children, "COMMAND", ("false",))
    for kind in ("jpg baseline", "jpg CMYK", "png palette", "png deep"):
        assert answer(bases()[kind], APART) == answer(bases()[kind], HERE)
    assert prepare_image(bases()["jpg turned"], 24, 24, APART).pixels.shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (SPINS, FailureCode.DECODE_TIMEOUT, "the decoder of BMP was ended after scoring.decoder_seconds = 1"),
        (SLEEPS, FailureCode.DECODE_TIMEOUT, "the decoder of BMP was ended after scoring.decoder_seconds = 1"),
        (ABORTS, FailureCode.DECODER_CRASHED, "the decoder of BMP crashed: SIGABRT"),
        (LEAVES, FailureCode.DECODER_CRASHED, "the decoder of BMP crashed: exit code 3"),
        (EATS, FailureCode.OUT_OF_MEMORY, "not enough memory to decode the image"),
        (RAISES, FailureCode.CORRUPT_IMAGE, 'unreadable BMP data: "a decoder\'s own"'),
    ],
)
def test_a_decoder_that_breaks_costs_its_image(faulty, monkeypatch, fault, code, message):
    monkeypatch.setattr(children, "_CLOCK_FACTOR", 3)
    seconds = 20.0 if fault is EATS else 1.0  # touching memory pages takes time
    limits = ImageLimits(isolated_s=seconds, max_pixels=1_000_000, max_bytes=1_000_000)
    began = time.monotonic()
    assert answer(bmp(fault), limits) == (code, message)
    assert time.monotonic() - began < 60
    assert answer(bmp(SOUND), limits) == answer(bmp(SOUND), HERE)
    assert code.stage == "decode"
    assert code.transient == (code is not FailureCode.CORRUPT_IMAGE)


def test_what_a_decoder_prints_is_no_answer(faulty):
    assert answer(bmp(PRINTS), APART) == answer(bmp(PRINTS), HERE)


def test_threads_do_not_suffer_from_each_others_decoders(faulty, monkeypatch):
    monkeypatch.setattr(children, "_CLOCK_FACTOR", 3)
    faults = [SOUND, ABORTS, SOUND, SPINS, SOUND, LEAVES, SOUND, SLEEPS] * 2
    limits = ImageLimits(isolated_s=1.0)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda fault: answer(bmp(fault), limits), faults))
    codes = [one[0] if isinstance(one[0], FailureCode) else "decoded" for one in found]
    assert codes == ["decoded", "decoder_crashed", "decoded", "decode_timeout"] * 4
    assert len(faulty._idle) <= 4


def test_a_large_picture_is_decoded_alone(pool, monkeypatch):
    from maskdet.images import preprocessing

    held = []

    class Lock:
        def __enter__(self):
            held.append("in")

        def __exit__(self, *_):
            held.append("out")

    monkeypatch.setattr(preprocessing, "_LARGE", Lock())
    stream = io.BytesIO()
    Image.new("RGB", (4000, 4001), "red").save(stream, "BMP")
    assert decode_upright(stream.getvalue(), APART).width_px == 4000
    assert held == ["in", "out"]
    assert decode_upright(bmp(SOUND), APART).width_px == 16
    assert held == ["in", "out"]


def test_a_child_knows_no_secrets_and_ends_with_its_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        "from maskdet.images.preprocessing import ImageLimits, decode_upright\n"
        "from maskdet.children import CHILDREN\n"
        "decode_upright(open(sys.argv[1], 'rb').read(), ImageLimits(isolated_s=9))\n"
        "print(CHILDREN._idle[0]._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "a.bmp").write_bytes(bmp(SOUND))
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "not-for-decoders"}
    command = [sys.executable, "-c", code, str(tmp_path / "a.bmp")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert b"not-for-decoders" not in Path(f"/proc/{child}/environ").read_bytes()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while _is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_without_children_the_setting_is_named(pool, monkeypatch):
    monkeypatch.setattr(children, "COMMAND", ("false",))
    with pytest.raises(ConfigError, match=r"scoring\.decoder_seconds"):
        decode_upright(bmp(SOUND), APART)


def test_pictures_are_cut_from_what_was_decoded_apart(pool):
    image, size = open_upright(bases()["webp lossy"], APART)
    assert (image.size, size) == ((160, 160), (160, 160))


def test_a_run_goes_on_after_decoders_that_break(faulty, tmp_path, score, monkeypatch):
    monkeypatch.setattr(children, "_CLOCK_FACTOR", 3)
    photos = tmp_path / "photos"
    photos.mkdir()
    faults = {"a": SOUND, "b": ABORTS, "c": SPINS, "d": SOUND, "e": LEAVES, "f": SOUND}
    for name, fault in faults.items():
        (photos / f"{name}.bmp").write_bytes(bmp(fault, 64))
    flags = ("--set", "failure_budget.max_ratio=1", "--set", "scoring.decoder_seconds=1")
    output = score(tmp_path / "tables", photos, flags=flags, template=None)
    assert output.code == 0
    assert output.run.failed_by_code == {"decode_timeout": 1, "decoder_crashed": 2}
    assert (output.run.images.listed, output.run.images.scored) == (6, 3)
    failed = output.table("failures").select(["image_uri", "code"]).to_pylist()
    assert {Path(row["image_uri"]).stem: row["code"] for row in failed} == {
        "b": "decoder_crashed", "c": "decode_timeout", "e": "decoder_crashed",
    }  # fmt: skip
    monkeypatch.undo()
    again = score(tmp_path / "tables", photos, flags=("--set", "failure_budget.max_ratio=0"), template=None)
    assert (again.code, again.run.images.scored) == (0, 6)  # with a repaired decoder, it is tried again
    assert again.run.images_scored_now == 3


class TestBetweenTasks:
    """A child whose answer was not read to its end gets no more tasks: the rest would be taken for the next answer."""

    TASK = "tests.images.talkative_task:talk"
    LIMITS = children.Limits(20.0, 512 * children.MIB, children.MIB)

    def ask(self, pool, **argument):
        def read(place, size):
            raise argument["raises"]

        told = {name: value for name, value in argument.items() if name != "raises"}
        return [
            bytes(one.data)
            for one in pool.ask(self.TASK, told, b"", self.LIMITS, read=read if "raises" in argument else None)
        ]

    @pytest.mark.parametrize("raises", [MemoryError(), ImageFault(FailureCode.NOT_FOUND, "gone")], ids=repr)
    def test_what_the_asking_side_raises_ends_the_child(self, pool, raises):
        with pytest.raises(type(raises)):
            self.ask(pool, asks=True, says="first", raises=raises)
        assert pool._idle == []
        assert self.ask(pool, says="second") == [b"second"]

    def test_a_task_that_raises_keeps_its_child(self, pool):
        with pytest.raises(children.TaskError, match="LookupError"):
            self.ask(pool, fails=True)
        (kept,) = pool._idle
        assert self.ask(pool, says="next") == [b"next"]
        assert pool._idle == [kept]

    def test_a_picture_too_many_is_none_and_ends_the_child(self, pool, monkeypatch):
        monkeypatch.setattr(isolated, "_TASK", "tests.images.talkative_task:draw_twice")
        with pytest.raises(ImageFault, match="gave no picture") as caught:
            decode_upright(bmp(7), APART)
        assert caught.value.code is FailureCode.DECODER_CRASHED
        assert pool._idle == []
