"""Pictures for people: marks, previews, and which rows a contact sheet shows, and where."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from maskdet.errors import ConfigError, FailureCode, OutputError, SourceError, StorageError
from maskdet.faces.extraction import FaceBox, FaceView, View
from maskdet.images.preprocessing import ImageLimits, open_upright
from maskdet.inputs.references import ImageRef
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import Decision
from maskdet.report import contact_sheet as sheets
from maskdet.report.contact_sheet import draw_sheet, make_sheet, plan_sheet, write_sheet
from maskdet.report.face_crops import CHANGED, read_crops
from maskdet.report.marks import (
    GONE,
    GREY,
    STYLES,
    Tag,
    answer,
    draw_tags,
    fit_text,
    printable,
    probability_of,
    shown_probability,
    text_size,
)
from maskdet.report.previews import MarkedFace, Previewer, draw_preview, preview_name, write_preview
from maskdet.report.sampling import choose_sections
from maskdet.schemas import no_face_schema, predictions_schema
from maskdet.scoring.scorer import ScoreOptions
from maskdet.tables.layout import Layout, write_table
from maskdet.tables.runs import RunRecord
from maskdet.testing import FaultyReader, brightness_model, solid_image

BLUE, VERMILION, YELLOW = (0, 114, 178), (213, 94, 0), (240, 228, 66)
LIMITS = ImageLimits()
RUN = RunRecord(
    run_id="r1",
    status="succeeded",
    started_at=datetime(2026, 1, 5, tzinfo=UTC),
    settings={},
    model={"id": "m@1", "runtime": "litert", "decision": {"no_mask_below": 0.3, "mask_from": 0.7}},
    fingerprint="f",
    versions={},
)


class SquareViewer:
    """Finds the bright rectangle of a dark image: a detector whose answer anyone can compute."""

    def __call__(self, data, clock):
        image, (width, height) = open_upright(data, LIMITS)
        bright = np.asarray(image).min(axis=2) > 60
        if not bright.any():
            return View(width, height, ())
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        box = FaceBox(*map(float, (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)))
        face = np.asarray(image)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        pixels = np.asarray(Image.fromarray(face).resize((16, 16)))
        return View(width, height, (FaceView(pixels, box, 0.9),))


def square_image(size, box, grey, file_format="PNG"):
    """A black image with one grey rectangle."""
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=(grey,) * 3)
    stream = io.BytesIO()
    image.save(stream, file_format)
    return stream.getvalue()


def options(**changes):
    return ScoreOptions(
        KeyRule((), ()), Decision(no_mask_below=0.3, mask_from=0.7), threads=2, fetch_attempts=1, **changes
    )


def has_colour(image, box, colour):
    """Whether any pixel of a region has a colour."""
    return (np.asarray(image.crop(box)) == colour).all(axis=2).any()


# Linear RGB as seen without red or green cones: Machado, Oliveira and Fernandes, 2009, severity 1.
SIGHTS = {
    "all": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.151202],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip


class TestMarks:
    @staticmethod
    def linear(colour):
        part = np.array(colour) / 255
        return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)

    def lab(self, colour, sight):
        to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        xyz = to_xyz @ np.clip(sight @ self.linear(colour), 0, 1) / [0.9505, 1.0, 1.089]
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    @pytest.mark.parametrize("name", SIGHTS)
    def test_labels_are_told_apart_in_every_sight(self, name):
        seen = [self.lab(style.colour, SIGHTS[name]) for style in STYLES.values()]
        distances = [np.linalg.norm(seen[i] - seen[j]) for i in range(len(seen)) for j in range(i)]
        assert min(distances) > 30  # a difference of 2.3 is just seen

    def test_text_on_a_colour_has_contrast(self):
        def luminance(colour):
            return self.linear(colour) @ [0.2126, 0.7152, 0.0722]

        for style in STYLES.values():
            light, dark = sorted((luminance(style.colour), luminance(style.ink)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5

    def test_a_box_s_line_lies_at_its_edge_and_a_hair_line_outside(self):
        canvas = Image.new("RGB", (200, 200), (30, 30, 30))
        draw_tags(canvas, [Tag((50, 60, 150, 180), "mask 0.98", STYLES["mask"])], 3, range(14, 33))
        for x, y in ((50, 120), (52, 120), (147, 120), (149, 120), (100, 60), (100, 179), (100, 177)):
            assert canvas.getpixel((x, y)) == BLUE
        assert canvas.getpixel((53, 120)) == canvas.getpixel((48, 120)) == (30, 30, 30)
        assert canvas.getpixel((49, 120)) == canvas.getpixel((150, 120)) == (255, 255, 255)

    def test_a_tag_stands_above_its_box_and_below_where_there_is_no_room(self):
        for top, region in ((60, (50, 30, 60, 58)), (0, (50, 84, 60, 100))):
            canvas = Image.new("RGB", (300, 200))
            draw_tags(canvas, [Tag((50, top, 130, top + 80), "no_mask 0.02", STYLES["no_mask"])], 2, range(14, 33))
            assert has_colour(canvas, region, VERMILION)

    def test_tags_of_neighbours_do_not_cover_each_other(self):
        canvas = Image.new("RGB", (400, 300))
        styles = [STYLES["mask"], STYLES["no_mask"]]
        boxes = [(100, 100, 160, 180), (110, 102, 170, 182)]
        draw_tags(canvas, [Tag(box, "uncertain 0.50", style) for box, style in zip(boxes, styles, strict=True)], 2,
                  range(14, 33))  # fmt: skip
        pixels = np.asarray(canvas)
        width, height = (side + 6 for side in text_size("uncertain 0.50", 14))
        for colour, ink in ((BLUE, (255, 255, 255)), (VERMILION, (0, 0, 0))):
            of_tag = (pixels == colour).all(axis=2)
            assert of_tag.sum() > 0.5 * width * height, (colour, ink)

    def test_long_names_lose_their_middle_and_stay_within_the_width(self):
        name = "a-very-long-name-of-a-camera-frame-0001.jpg"
        short = fit_text(name, 14, 120)
        assert text_size(short, 14)[0] <= 120
        head, tail = short.split("...")
        assert name.startswith(head) and name.endswith(tail) and head and tail
        assert fit_text("short", 14, 120) == "short"

    def test_names_cannot_steer_a_terminal(self):
        assert printable("a\x1b[31m\nb.jpg") == "a?[31m?b.jpg"
        assert printable("grün.jpg") == "grün.jpg"


class TestPreviews:
    def test_labels_are_those_of_the_thresholds_and_boxes_are_in_the_label_s_colour(self, tmp_path):
        cases = {"mask": (230, BLUE), "no_mask": (70, VERMILION), "uncertain": (128, YELLOW)}
        for label, (grey, _) in cases.items():
            (tmp_path / f"{label}.png").write_bytes(square_image((640, 480), (200, 100, 300, 220), grey))
        refs = [ImageRef(str(tmp_path / f"{label}.png"), -1, "") for label in cases]
        previews = list(Previewer(brightness_model(), options(), SquareViewer()).previews(refs))
        for preview, ref, (label, (grey, colour)) in zip(previews, refs, cases.items(), strict=True):
            assert preview.uri == ref.uri
            [face] = preview.faces
            assert (face.label, face.box) == (label, (200, 100, 100, 120))
            # The label's own: beside no_mask that of no_mask. Beside uncertain there is none, but that of a mask.
            assert face.probability == pytest.approx(1 - grey / 255 if label == "no_mask" else grey / 255, abs=1e-6)
            assert preview.picture.size == (640, 480)
            for x, y in ((200, 160), (299, 160), (250, 100), (250, 219)):
                assert preview.picture.getpixel((x, y)) == colour
            assert preview.picture.getpixel((250, 160)) == (grey,) * 3

    @pytest.mark.parametrize(
        ("label", "probability", "words"),
        [
            ("mask", 0.6, "mask 0.60"),
            ("incorrect", 0.3, "incorrect 0.30"),
            ("no_mask", 0.1, "no_mask 0.10"),
            ("uncertain", 0.9, "uncertain, mask 0.90"),
            ("not_a_face", 0.9, "not_a_face, mask 0.90"),  # said by people
        ],
    )
    def test_a_probability_is_the_label_s_own_or_says_of_what_it_is(self, label, probability, words):
        shown = probability_of(label, {"mask": 0.6, "incorrect": 0.3, "no_mask": 0.1})
        assert shown == pytest.approx(probability)
        assert answer(label, label, f"{shown:.2f}") == words

    def test_a_model_that_does_not_tell_incorrect_has_no_probability_of_it(self):
        row = {"label": "incorrect", "probability_mask": 0.75, "probability_incorrect": None}  # said by people
        shown = shown_probability(row)
        assert shown == 0.75
        assert answer("incorrect", "incorrect", f"{shown:.2f}", tells_incorrect=False) == "incorrect, mask 0.75"

    @pytest.mark.parametrize(
        ("size", "shown"),
        [((24, 24), (480, 480)), ((640, 480), (640, 480)), ((6400, 4800), (1600, 1200)), ((48, 4800), (200, 1600))],
    )
    def test_boxes_scale_with_the_picture_whatever_its_size(self, size, shown):
        width, height = size
        box = FaceBox(width / 4, height / 4, width / 2, height / 2)
        faces = [MarkedFace("mask", 0.9, box, 0.8)]
        picture = draw_preview(encoded(size), faces, LIMITS)
        assert picture.size == shown
        scale = (1600 if max(size) > 1600 else max(*size, 480)) / max(size)
        middle = round(height / 2 * scale)
        assert picture.getpixel((round(width / 4 * scale), middle)) == BLUE
        # A tag of readable text is there: as many blue pixels as 14 px of text need.
        blue = (np.asarray(picture) == BLUE).all(axis=2).sum()
        assert blue > 0.5 * np.prod(text_size("mask 0.90", 14))

    def test_an_image_that_is_one_face_has_a_frame_and_one_without_says_so(self):
        whole = draw_preview(encoded((600, 400)), [MarkedFace("uncertain", 0.5, None, None)], LIMITS)
        assert all(whole.getpixel(place) == YELLOW for place in ((0, 399), (599, 0), (599, 399), (300, 399)))
        none = draw_preview(encoded((600, 400)), [], LIMITS)
        assert none.getpixel((599, 399)) == GREY

    def test_a_rotated_jpeg_is_shown_upright(self):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise by a quarter
        stream = io.BytesIO()
        Image.new("RGB", (800, 500)).save(stream, "JPEG", exif=exif)
        assert draw_preview(stream.getvalue(), [], LIMITS).size == (500, 800)

    def test_broken_images_cost_the_others_nothing(self, tmp_path):
        good = square_image((640, 480), (200, 100, 300, 220), 230)
        for name, data in {"a.png": good, "b.png": b"", "c.png": b"text", "d.png": good[:200], "f.png": good}.items():
            (tmp_path / name).write_bytes(data)
        refs = [ImageRef(str(tmp_path / f"{name}.png"), -1, "") for name in "abcdef"]
        previews = list(Previewer(brightness_model(), options(), SquareViewer()).previews(refs))
        codes = [preview.fault and preview.fault.code for preview in previews]
        empty, text, cut = FailureCode.EMPTY_FILE, FailureCode.NOT_AN_IMAGE, FailureCode.CORRUPT_IMAGE
        assert codes == [None, empty, text, cut, FailureCode.NOT_FOUND, None]
        assert [preview.picture is not None for preview in previews] == [code is None for code in codes]

    def test_each_image_is_read_once_and_in_order(self, tmp_path):
        refs = []
        for index in range(40):
            (tmp_path / f"{index}.png").write_bytes(solid_image(index * 6))
            refs.append(ImageRef(str(tmp_path / f"{index}.png"), -1, ""))
        read = FaultyReader({})
        previews = list(Previewer(brightness_model(), options(), read=read).previews(refs))
        assert set(read.tries.values()) == {1}
        of_mask = [
            1 - face.probability if face.label == "no_mask" else face.probability
            for [face] in (preview.faces for preview in previews)
        ]
        assert [round(255 * probability) for probability in of_mask] == [6 * i for i in range(40)]

    def test_names_differ_wherever_uris_do_and_are_safe(self):
        uris = ["/a/1.jpg", "/b/1.jpg", "/a/1.png", "gs://b/1.jpg", "/a/" + "ü" * 200 + ".jpg", "/a/x\n?.jpg"]
        names = [preview_name(uri, "jpeg") for uri in uris]
        assert len(set(names)) == len(uris)
        digest = hashlib.sha256(b"/a/1.jpg").hexdigest()[:10]
        assert names[0] == f"1-{digest}.jpg"
        assert all(len(name.encode()) < 150 and name.isprintable() and "/" not in name for name in names)

    @pytest.mark.parametrize("kind", ["jpeg", "png"])
    def test_a_preview_is_written_whole_and_nothing_else(self, tmp_path, kind):
        (tmp_path / "a.png").write_bytes(square_image((640, 480), (200, 100, 300, 220), 230))
        previewer = Previewer(brightness_model(), options(), SquareViewer())
        [preview] = previewer.previews([ImageRef(str(tmp_path / "a.png"), -1, "")])
        uri = write_preview(str(tmp_path / "out"), preview, kind)
        assert [str(path) for path in (tmp_path / "out").iterdir()] == [uri]
        with Image.open(uri) as image:
            assert (image.format, image.size) == (kind.upper(), (640, 480))
            assert np.abs(np.subtract(image.getpixel((201, 160)), BLUE)).max() <= (40 if kind == "jpeg" else 0)


def encoded(size):
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 180, 160)).save(stream, "PNG")
    return stream.getvalue()


def face_row(uri, sha, probability, label=None, box=None, index=0, incorrect=None):
    box = box or (None,) * 4
    label = label or ("mask" if probability >= 0.7 else "no_mask" if probability < 0.3 else "uncertain")
    sides = dict(zip(("left", "top", "width", "height"), box, strict=True))
    return {
        "image_uri": uri,
        "captured_at": None,
        "content_sha256": sha,
        "width_px": 10,
        "height_px": 10,
        "face_index": index,
        **{f"face_{side}_px": value for side, value in sides.items()},
        "face_score": None,
        "probability_mask": probability,
        "probability_incorrect": incorrect,
        "probability_no_mask": 1 - probability - (incorrect or 0),
        "label": label,
        "model_id": "m@1",
    }


def write_predictions(root, rows, files=("shard-all",), row_group_rows=100_000):
    """Rows dealt out over files, which may lie in partitions."""
    layout = Layout(str(root))
    for number, slot in enumerate(files):
        table = pa.Table.from_pylist(rows[number :: len(files)], schema=predictions_schema())
        write_table(layout.table("predictions", slot), table, row_group_rows)
    return layout


def sha_of(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def uris(section):
    return [row["image_uri"] for row in section.rows]


class TestChoice:
    def rows(self, count, seed=1):
        values = np.random.default_rng(seed).permutation(np.linspace(0, 0.93, count)).astype(np.float32)
        return [face_row(f"/i/{i:05}.jpg", sha_of(i), float(value)) for i, value in enumerate(values)]

    def test_sections_hold_the_nearest_to_the_middle_and_the_farthest_of_each_label(self, tmp_path):
        rows = self.rows(3000)
        layout = write_predictions(tmp_path, rows, ("a", "b"), row_group_rows=64)
        unsure, mask, no_mask, chance = choose_sections(layout, RUN, 7, seed=0)

        def expected(key, label=None):
            return [r["image_uri"] for r in sorted((r for r in rows if label in (None, r["label"])), key=key)[:7]]

        assert uris(unsure) == expected(lambda row: abs(row["probability_mask"] - 0.5))
        assert uris(mask) == expected(lambda row: -row["probability_mask"], "mask")
        assert uris(no_mask) == expected(lambda row: row["probability_mask"], "no_mask")
        labels = Counter(row["label"] for row in rows)
        assert [s.total for s in (unsure, mask, no_mask, chance)] == [3000, labels["mask"], labels["no_mask"], 3000]
        assert len(set(uris(chance))) == 7

    def test_the_middle_is_that_of_the_run_s_thresholds(self, tmp_path):
        layout = write_predictions(tmp_path, self.rows(101))
        run = RUN.model_copy(update={"model": {"decision": {"no_mask_below": 0.7, "mask_from": 0.9}}})
        [row] = choose_sections(layout, run, 1, seed=0)[0].rows
        assert row["probability_mask"] == pytest.approx(0.8, abs=0.005)  # the values are .0093 apart

    def test_three_classes_have_a_section_of_masks_worn_incorrectly(self, tmp_path):
        rows = [
            face_row("/i/0.jpg", sha_of(0), 0.9, "mask", incorrect=0.05),
            face_row("/i/1.jpg", sha_of(1), 0.2, "incorrect", incorrect=0.7),
            face_row("/i/2.jpg", sha_of(2), 0.1, "incorrect", incorrect=0.9),
            face_row("/i/3.jpg", sha_of(3), 0.05, "no_mask", incorrect=0.2),
            face_row("/i/4.jpg", sha_of(4), 0.1, "no_mask", incorrect=0.05),
        ]
        decision = {"no_mask_below": 0.3, "mask_from": 0.7, "incorrect_from": 0.5}
        run = RUN.model_copy(update={"model": {"decision": decision}})
        unsure, mask, incorrect, no_mask, _ = choose_sections(write_predictions(tmp_path, rows), run, 9, seed=0)
        # Whether there is a mask: .95, .9, 1, .25 and .15, against the middle of .5.
        assert uris(unsure) == ["/i/3.jpg", "/i/4.jpg", "/i/1.jpg", "/i/0.jpg", "/i/2.jpg"]
        assert [section.title for section in (mask, incorrect, no_mask)] == [
            "most confident mask",
            "most confident incorrect",
            "most confident no_mask",
        ]
        assert (uris(mask), uris(incorrect)) == (["/i/0.jpg"], ["/i/2.jpg", "/i/1.jpg"])
        assert uris(no_mask) == ["/i/4.jpg", "/i/3.jpg"]
        assert shown_probability(incorrect.rows[0]) == pytest.approx(0.9)
        assert shown_probability(mask.rows[0]) == pytest.approx(0.9)

    @pytest.mark.parametrize("decision", [None, "mask from 0.9, no_mask below 0.7", {"mask_from": "high"}])
    def test_a_run_without_thresholds_as_numbers_is_refused(self, tmp_path, decision):
        run = RUN.model_copy(update={"model": {"decision": decision}})
        with pytest.raises(OutputError, match=r"thresholds as numbers.*score again"):
            choose_sections(write_predictions(tmp_path, self.rows(3)), run, 1, seed=0)

    def test_a_threshold_near_the_end_does_not_make_the_sure_uncertain(self, tmp_path):
        values = {
            0.0: 3,
            0.001: 2,
            0.835: 1,
            0.3: 0,
            1.0: 4,
        }  # log-odds from the threshold's −1.2: −17, −5.7, 2.8, .4, 19
        rows = [face_row(f"/i/{rank}.jpg", sha_of(rank), value) for value, rank in values.items()]
        run = RUN.model_copy(update={"model": {"decision": {"no_mask_below": 0.23, "mask_from": 0.23}}})
        unsure = choose_sections(write_predictions(tmp_path, rows), run, 5, 0)[0]
        assert uris(unsure) == [f"/i/{rank}.jpg" for rank in range(5)]

    def test_the_choice_does_not_depend_on_files_partitions_or_row_groups(self, tmp_path):
        rows = self.rows(500)
        for row in rows:  # int8 models give few distinct values: nearly all are ties
            row["probability_mask"] = float(np.round(row["probability_mask"]))
            row["label"] = "mask" if row["probability_mask"] else "no_mask"
        rows += [dict(row, image_uri=f"/copy/{i}.jpg") for i, row in enumerate(rows[:100])]
        one = write_predictions(tmp_path / "1", rows)
        many = write_predictions(tmp_path / "2", rows[::-1], [f"site={i}/date=2026-01-0{i}/s-{i}" for i in range(1, 8)],
                                 row_group_rows=5)  # fmt: skip
        assert choose_sections(one, RUN, 9, 3) == choose_sections(many, RUN, 9, 3)

    def test_random_faces_are_named_by_the_seed_and_all_faces_are_as_likely(self, tmp_path):
        layout = write_predictions(tmp_path, self.rows(100))
        drawn = [uris(choose_sections(layout, RUN, 10, seed)[3]) for seed in range(200)]
        assert drawn[0] == uris(choose_sections(layout, RUN, 10, 0)[3])
        counts = Counter(uri for draw in drawn for uri in draw)
        # 200 draws of 10 in 100: 20 expected each, standard deviation 4.2.
        assert len(counts) == 100
        assert 4 <= min(counts.values()) <= max(counts.values()) <= 38

    def test_faces_of_one_image_are_drawn_apart(self, tmp_path):
        rows = [face_row("/i/crowd.jpg", sha_of(0), 0.9, index=i) for i in range(50)]
        chance = choose_sections(write_predictions(tmp_path, rows), RUN, 5, 1)[-1]
        assert sorted(row["face_index"] for row in chance.rows) != [0, 1, 2, 3, 4]
        assert len({row["face_index"] for row in chance.rows}) == 5

    def test_images_without_a_face_have_a_section_of_their_own(self, tmp_path):
        layout = write_predictions(tmp_path, self.rows(10))
        faceless = [
            {"image_uri": f"/n/{i}.jpg", "content_sha256": sha_of(-i), "width_px": 5, "height_px": 5} for i in range(20)
        ]
        table = pa.Table.from_pylist(faceless, schema=no_face_schema(["site"]))
        write_table(layout.table("no_face", "s"), table, 100)
        section = choose_sections(layout, RUN, 4, 0)[-1]
        assert (len(section.rows), section.total) == (4, 20)
        assert all(uri.startswith("/n/") for uri in uris(section))

    def test_memory_does_not_grow_with_the_output(self, tmp_path):
        def peak(count):
            values = np.linspace(0, 1, count).astype(np.float32)
            shas = [sha_of(i % 5000) for i in range(count)]
            columns = {
                "image_uri": [f"/images/site/camera/2026-01-05/frame-{i:09}.jpg" for i in range(count)],
                "content_sha256": shas,
                "face_index": np.zeros(count, np.int32),
                **{f"face_{side}_px": np.zeros(count, np.float32) for side in ("left", "top", "width", "height")},
                "probability_mask": values,
                "probability_incorrect": pa.nulls(count, pa.float32()),
                "label": np.where(values >= 0.5, "mask", "no_mask"),
            }
            layout = Layout(str(tmp_path / str(count)))
            table = pa.table(columns)
            write_table(layout.table("predictions", "s"), table, 50_000)
            del table, columns
            pool = pa.proxy_memory_pool(pa.default_memory_pool())
            before = pa.default_memory_pool()
            pa.set_memory_pool(pool)
            try:
                choose_sections(layout, RUN, 20, 0)
                return pool.max_memory()
            finally:
                pa.set_memory_pool(before)

        assert peak(600_000) < 1.1 * peak(200_000)

    def test_a_damaged_table_is_named(self, tmp_path):
        layout = write_predictions(tmp_path, self.rows(5))
        (tmp_path / "predictions" / "bad.parquet").write_bytes(b"PAR1 no")
        with pytest.raises(StorageError, match=r"bad\.parquet"):
            choose_sections(layout, RUN, 3, 0)


class TestCrops:
    def saved(self, path, data):
        path.write_bytes(data)
        return str(path), hashlib.sha256(data).hexdigest()

    def test_a_crop_is_the_face_s_square_with_a_quarter_of_it_around(self, tmp_path):
        image = self.saved(tmp_path / "a.png", square_image((640, 480), (200, 100, 300, 200), 200))
        [crop] = read_crops([face_row(*image, 0.9, box=(200, 100, 100, 100))], LIMITS, 150, 1)
        # 150 pixels show 150: the face from 25 to 125.
        assert crop.size == (150, 150)
        pixels = np.asarray(crop)[:, :, 0]
        assert (pixels[30:120, 30:120] == 200).all()
        assert (pixels[:20] == 0).all() and (pixels[:, 130:] == 0).all()

    def test_without_a_box_the_whole_image_is_shown_in_its_proportions(self, tmp_path):
        image = self.saved(tmp_path / "a.png", encoded((200, 100)))
        [crop] = read_crops([face_row(*image, 0.9)], LIMITS, 100, 1)
        pixels = np.asarray(crop)
        assert (pixels[25:75] == (200, 180, 160)).all()
        assert (pixels[:25] == GREY).all() and (pixels[75:] == GREY).all()

    def test_what_is_gone_changed_or_unreadable_says_so_and_the_rest_is_shown(self, tmp_path):
        rows = [
            face_row(*self.saved(tmp_path / f"{name}.png", solid_image(100 + i)), 0.9) for i, name in enumerate("abcd")
        ]
        (tmp_path / "b.png").unlink()
        (tmp_path / "c.png").write_bytes(solid_image(7))
        rows.append(face_row(*self.saved(tmp_path / "e.png", b"text"), 0.9))
        kept, gone, changed, other, text = read_crops(rows, LIMITS, 20, 1)
        assert (gone, changed, text) == (GONE, CHANGED, "unreadable: not_an_image")
        assert (kept.getpixel((10, 10)), other.getpixel((10, 10))) == ((100,) * 3, (103,) * 3)


class TestSheet:
    def test_tiles_stand_in_rows_under_the_title_of_their_section(self):
        plan = plan_sheet([12, 1])
        # Ten columns of 144 + 2 · 4 pixels and gaps of 12; tiles with captions of 62, titles of 40, a head of 44.
        assert plan.title_tops == [44, 44 + 40 + 2 * (152 + 62)]
        assert plan.tiles[:2] == [(12, 84), (12 + 164, 84)]
        assert plan.tiles[10] == (12, 84 + 214)
        assert plan.tiles[12] == (12, plan.title_tops[1] + 40)
        assert plan.size == (12 + 10 * 164, plan.tiles[12][1] + 214 + 12)

    def test_a_tile_is_its_crop_in_a_frame_of_its_label_s_colour(self, tmp_path):
        rows = []
        for i, probability in enumerate((0.99, 0.01, 0.5)):
            data = solid_image(40 * (i + 1), side_px=64)
            (tmp_path / f"{i}.png").write_bytes(data)
            rows.append(face_row(str(tmp_path / f"{i}.png"), hashlib.sha256(data).hexdigest(), probability))
        layout = write_predictions(tmp_path / "out", rows, ("site=a/s", "site=b/s"))
        (tmp_path / "0.png").unlink()
        (tmp_path / "1.png").write_bytes(solid_image(0))
        sheet = make_sheet(layout, RUN, 1, 0)
        # Sections: uncertain (2.png), mask (0.png), no_mask (1.png), random.
        expected = [(YELLOW, (120, 120, 120)), (BLUE, GREY), (VERMILION, GREY)]
        for number, (frame, inside) in enumerate(expected):
            top = 44 + 40 + number * (40 + 214)
            assert sheet.picture.getpixel((12 + 1, top + 1)) == frame
            assert sheet.picture.getpixel((12 + 151, top + 151)) == frame
            assert sheet.picture.getpixel((12 + 4, top + 4)) == inside
            assert sheet.picture.getpixel((12 + 147, top + 147)) == inside
            words = has_colour(sheet.picture, (12 + 8, top + 44, 12 + 140, top + 100), (0, 0, 0))
            assert words == (inside == GREY)
            caption = (12, top + 152, 12 + 152, top + 214)
            assert np.asarray(sheet.picture.crop(caption).convert("L")).min() < 80
        assert (
            sheet.lines[0] == "most uncertain: log-odds nearest to those of 0.5, the middle of the thresholds: 1 of 3"
        )
        assert sheet.lines[3].split() == ["2", "mask", "0.990", "face", "0", str(tmp_path / "0.png"), "(gone", "since",
                                          "it", "was", "scored)"]  # fmt: skip
        assert sheet.lines[5].endswith("1.png  (changed since it was scored)")
        assert sheet.missing == 2 + sheet.lines[7].count("since")

    def test_a_sheet_of_most_tiles_stays_a_picture_that_viewers_open(self):
        width, height = plan_sheet([sheets.MOST_TILES] * 5).size
        assert width * height < 40_000_000

    def test_long_and_foreign_names_stay_in_their_tiles(self):
        rows = [face_row(f"/a/{'x' * 300}-{i}.jpg", sha_of(i), 0.9) for i in range(2)]
        section = choose_sections_of(rows)
        picture = draw_sheet("/" + "o" * 500, [section], [Image.new("RGB", (144, 144))] * 2)
        between = picture.crop((12 + 152, 84, 12 + 164 - 2, 84 + 214))  # an x may begin a pixel early
        assert (np.asarray(between) == 255).all()
        assert (np.asarray(picture.crop((picture.width - 12, 0, picture.width, 44))) == 255).all()

    @pytest.mark.parametrize("count", [0, -1, sheets.MOST_TILES + 1])
    def test_a_count_out_of_range_is_refused(self, tmp_path, count):
        with pytest.raises(ConfigError, match="--sheet"):
            make_sheet(Layout(str(tmp_path)), RUN, count, 0)

    def test_an_output_with_nothing_to_show_is_refused(self, tmp_path):
        with pytest.raises(SourceError, match="a face, or an image without one"):
            make_sheet(Layout(str(tmp_path)), RUN, 3, 0)

    def test_a_sheet_is_png_and_its_name_must_say_so(self, tmp_path):
        sheet = sheets.Sheet(Image.new("RGB", (30, 20)), [], 0)
        write_sheet(str(tmp_path / "s.png"), sheet)
        with Image.open(tmp_path / "s.png") as image:
            assert (image.format, image.size) == ("PNG", (30, 20))
        with pytest.raises(ConfigError, match=r"\.png"):
            write_sheet(str(tmp_path / "s.jpg"), sheet)
        assert [path.name for path in tmp_path.iterdir()] == ["s.png"]


def choose_sections_of(rows):
    from maskdet.report.sampling import Section

    return Section("random faces", rows, len(rows))
