"""Frames of segments: the right ones at the right times, the same however a video is cut; and what of it is lost."""

from __future__ import annotations

import hashlib
import io
import random

import numpy as np
import pytest

from maskdet.errors import FailureCode, ImageFault
from maskdet.video.frames import LostStretch, SampledFrame, read_segment
from maskdet.video.pictures import upright_rgb
from maskdet.video.reading import open_video, read_info
from maskdet.video.sampling import Grid, cut
from tests.video.clips import film, number_of, numbered, shown_times_us, sound

FORMATS = {
    "h264.mp4": {"gop": 12},
    "h264.mkv": {"gop": 30},
    "h264.ts": {"gop": 25},
    "mpeg2.mpg": {"codec": "mpeg2video", "gop": 15},
    "vp9.webm": {"codec": "libvpx-vp9", "gop": 20, "options": {"cpu-used": "8", "deadline": "realtime"}},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "tenbit.mp4": {"pixels": "yuv420p10le", "gop": 12},
    "open_gop.mp4": {"gop": 12, "options": {"x264-params": "open-gop=1:bframes=3:scenecut=0"}},
    "variable.mp4": {"gop": 12, "times": lambda number: number * 40 + (number * number * 7) % 35 + 900 * (number > 60)},
}
FRAMES = 130


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    pictures = [numbered(number) for number in range(FRAMES)]
    return {name: film(folder / name, pictures, **options) for name, options in FORMATS.items()}


def segments_of(source, seconds, mode="sampled", rate=2.0):
    with open_video(rewound(source)) as video:
        info = read_info(video)
    length_us = round(seconds * 1e6) if info.is_cuttable else max(info.duration_us, 1)
    return cut(info.duration_us, Grid.of(rate), mode, length_us)


def events_of(source, seconds=1e6, mode="sampled", rate=2.0):
    """Times, pictures and lost stretches of a video in segments of some length."""
    events = []
    for segment in segments_of(source, seconds, mode, rate):
        with open_video(rewound(source)) as video:
            for event in read_segment(video, segment):
                if isinstance(event, SampledFrame):
                    events.append((event.time_us, upright_rgb(event, video.stream.sample_aspect_ratio)))
                else:
                    events.append(event)
    return events


def rewound(source):
    if isinstance(source, bytes):
        return io.BytesIO(source)
    return str(source)


def digests(events):
    return [one if isinstance(one, LostStretch) else (one[0], hashlib.sha256(one[1]).hexdigest()) for one in events]


def first_of_each_interval(times_us, rate):
    """The sampling rule, written another way: with floats, without the grid's arithmetic."""
    chosen = {}
    for time_us in times_us:
        chosen.setdefault(int(time_us / 1e6 * rate + 1e-7), time_us)
    return list(chosen.values())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("rate", [2.0, 3.0])
def test_frames_are_those_first_shown_in_each_interval(films, name, rate):
    times = shown_times_us(films[name])
    assert len(times) == FRAMES
    events = events_of(films[name], rate=rate)
    assert [time_us for time_us, _ in events] == first_of_each_interval(times, rate)
    assert [number_of(picture) for _, picture in events] == [times.index(time_us) for time_us, _ in events]


@pytest.mark.parametrize("name", FORMATS)
def test_all_frames_are_all(films, name):
    events = events_of(films[name], seconds=1.7, mode="all")
    assert [time_us for time_us, _ in events] == shown_times_us(films[name])
    assert [number_of(picture) for _, picture in events] == list(range(FRAMES))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("mode", ["sampled", "keyframes"])
def test_pictures_do_not_depend_on_where_a_video_is_cut(films, name, mode):
    whole = digests(events_of(films[name], mode=mode))
    assert len(whole) > 5
    for seconds, least in ((3.0, 2), (0.5, 7)):
        if name != "mjpeg.avi":  # which counts its frames from the start
            assert len(segments_of(films[name], seconds)) >= least
        assert digests(events_of(films[name], seconds, mode)) == whole


def test_interlaced_frames_are_made_whole_by_their_neighbours(tmp_path):
    """A bar that moves from field to field: in a deinterlaced frame, neighbouring lines agree."""
    pictures = []
    for number in range(75):
        picture = np.full((96, 160, 3), 16, np.uint8)
        for field in (0, 1):
            left = (2 * number + field) * 2 % 140
            picture[field::2, left : left + 20] = 235
        pictures.append(picture)
    path = film(tmp_path / "i.mp4", pictures, options={"x264-params": "interlaced=1:tff=1", "crf": "5"})
    events = events_of(path)
    combs = [np.abs(np.diff(picture[40:60, :, 1].astype(int), axis=0)).mean() for _, picture in events]
    raw = [np.abs(np.diff(picture[40:60, :, 1].astype(int), axis=0)).mean() for picture in pictures[::13]]
    assert max(combs) < 0.3 * min(raw)
    assert digests(events_of(path, 0.5)) == digests(events)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_display_matrix_turns_the_picture(tmp_path, quarters):
    pictures = [numbered(number) for number in range(10)]
    path = film(tmp_path / "turned.mp4", pictures, prepare=lambda stream: stream.set_display_rotation(0))
    data = bytearray(path.read_bytes())
    # The matrix of ISO 14496-12: a point (x, y) is shown at (a x + c y, b x + d y); y goes down, so b > 0 is clockwise.
    clockwise = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarters]
    place = data.index(b"tkhd") + 4 + 40
    for offset, value in zip((0, 4, 12, 16), clockwise, strict=True):
        data[place + offset : place + offset + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    _, picture = events_of(bytes(data))[0]
    upright = np.rot90(picture, quarters)
    assert upright.shape == (96, 160, 3)
    assert number_of(upright) == 0
    assert upright[:16, :16].mean(axis=(0, 1)) == pytest.approx((255, 0, 0), abs=30)


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    from fractions import Fraction

    def anamorphic(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    path = film(tmp_path / "wide.mp4", [numbered(5)] * 5, prepare=anamorphic)
    _, picture = events_of(path)[0]
    assert picture.shape == (96, round(160 * 16 / 11), 3)


@pytest.mark.parametrize(("lines", "matrix"), [(96, (0.299, 0.114)), (720, (0.2126, 0.0722))])
def test_without_a_word_colours_are_of_601_below_720_lines_and_of_709_from_there(tmp_path, lines, matrix):
    import av

    path = tmp_path / "plain.mkv"
    luma, blue, red = 120, 90, 170
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, lines, "yuv444p"
        for _ in range(3):
            planes = np.stack([np.full((lines, 64), value, np.uint8) for value in (luma, blue, red)])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv444p")))
        container.mux(stream.encode())
    _, picture = events_of(path)[0]
    k_red, k_blue = matrix  # BT.601 and BT.709, in studio range
    y, b, r = (luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224
    red_light, blue_light = y + 2 * (1 - k_red) * r, y + 2 * (1 - k_blue) * b
    green_light = (y - k_red * red_light - k_blue * blue_light) / (1 - k_red - k_blue)
    expected = 255 * np.clip([red_light, green_light, blue_light], 0, 1)
    assert picture[lines // 2, 32] == pytest.approx(expected, abs=1.5)


def damaged(data, kind, seed):
    draw, changed = random.Random(seed), bytearray(data)
    place = draw.randrange(len(data) // 6, len(data) * 5 // 6)
    if kind == "zeros":
        changed[place : place + 400] = bytes(400)
    elif kind == "flips":
        for _ in range(6):
            changed[draw.randrange(len(data) // 6, len(data) * 5 // 6)] ^= 0x55
    else:
        changed = changed[:place]
    return bytes(changed)


@pytest.fixture(scope="module")
def noisy_films(tmp_path_factory):
    """Films with so much detail that most of a file is picture data."""
    folder, drawn = tmp_path_factory.mktemp("noisy"), np.random.default_rng(3)
    texture = drawn.integers(0, 255, (96, 400, 3), dtype=np.uint8)
    pictures = [np.ascontiguousarray(texture[:, number : number + 160]) for number in range(FRAMES)]
    names = ("h264.mp4", "h264.mkv", "h264.ts", "mjpeg.mov", "vp9.webm")
    return {name: film(folder / name, pictures, **FORMATS[name]).read_bytes() for name in names}


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "mjpeg.mov", "vp9.webm"])
@pytest.mark.parametrize("kind", ["zeros", "flips", "cut"])
def test_damage_is_lost_alike_however_a_video_is_cut(noisy_films, name, kind):
    if kind == "cut" and name.endswith((".mp4", ".mov")):
        pytest.skip("without its end such a file cannot be opened")
    for seed in range(3):
        data = damaged(noisy_films[name], kind, seed)
        whole = digests(events_of(data))
        assert whole
        assert digests(events_of(data, 3.0)) == whole
        assert digests(events_of(data, 0.5)) == whole


def test_what_is_not_lost_is_as_it_was_and_no_interval_is_forgotten(noisy_films):
    film_data = noisy_films["h264.mkv"]
    sound_pictures = dict(digests(events_of(film_data)))
    lost_somewhere = 0
    for seed in range(4):
        events = digests(events_of(damaged(film_data, "zeros", seed)))
        lost = [event for event in events if isinstance(event, LostStretch)]
        kept = dict(event for event in events if not isinstance(event, LostStretch))
        for time_us, digest in kept.items():  # after a loss, another frame may be the first of its interval
            assert time_us not in sound_pictures or digest == sound_pictures[time_us]
        assert len(kept) + sum(stretch.frames for stretch in lost) == len(sound_pictures)
        lost_somewhere += len(lost)
    assert lost_somewhere


def test_a_file_that_ends_early_loses_what_its_header_promises(noisy_films):
    data = noisy_films["h264.mkv"]
    *frames, lost = events_of(data[: len(data) // 2])
    assert isinstance(lost, LostStretch)
    assert lost.end_us == pytest.approx(FRAMES * 40_000, abs=500_000)
    assert len(frames) + lost.frames == -(-FRAMES * 2 // 25)


def test_a_short_stretch_that_costs_no_frame_is_none(noisy_films):
    data = bytearray(noisy_films["mjpeg.mov"])
    starts = [place for place in range(len(data) - 1) if data[place : place + 2] == b"\xff\xd8"]
    place = starts[5]  # of 25 frames a second, the sixth is in the middle of an interval
    data[place : place + 200] = bytes(200)
    events = events_of(bytes(data))
    assert [event for event in events if isinstance(event, LostStretch)] == []
    assert len(events) == -(-FRAMES * 2 // 25)


def test_what_is_no_video_says_so(tmp_path):
    cases = {
        b"no video at all" * 100: FailureCode.NOT_A_VIDEO,
        bytes(100_000): FailureCode.NOT_A_VIDEO,
        sound(tmp_path / "sound.mp4").read_bytes(): FailureCode.NO_PICTURES,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n": FailureCode.NOT_A_VIDEO,
        b"ffconcat version 1.0\nfile /etc/passwd\n": FailureCode.NOT_A_VIDEO,
    }
    for data, code in cases.items():
        with pytest.raises(ImageFault) as caught, open_video(io.BytesIO(data)):
            pass
        assert caught.value.code is code


def test_a_header_tells_length_and_beginning(tmp_path):
    tags = {"creation_time": "2026-03-02T08:15:00.000000Z"}
    path = film(tmp_path / "dated.mp4", [numbered(1)] * 50, tags=tags)
    with open_video(str(path)) as video:
        info = read_info(video)
    assert (info.duration_us, info.width_px, info.height_px) == (2_000_000, 160, 96)
    assert info.created_at_ms == 1_772_439_300_000


def test_a_clock_that_was_never_set_tells_nothing(tmp_path):
    path = film(tmp_path / "unset.mp4", [numbered(1)] * 5, tags={"creation_time": "1970-01-01T00:00:00.000000Z"})
    with open_video(str(path)) as video:
        assert read_info(video).created_at_ms is None
