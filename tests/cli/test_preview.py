"""`maskdet preview` and `maskdet inspect --sheet`, as people run them."""

import hashlib
import re

import numpy as np
import pytest
from PIL import Image

from maskdet.cli import main
from maskdet.cli.inspect import main as inspect
from maskdet.cli.preview import main as preview
from maskdet.errors import EXIT_CODES
from maskdet.tables.layout import PREDICTIONS
from maskdet.testing import solid_image

BLUE, VERMILION, YELLOW, GREY = (0, 114, 178), (213, 94, 0), (240, 228, 66), (150, 150, 150)
FRAMES = {"mask": BLUE, "no_mask": VERMILION, "uncertain": YELLOW}
FACE_LINE = re.compile(r"^(?P<uri>\S+)  face (?P<face>\d+)  (?P<label>\w+) +(?P<probability>[\d.]+)  (?P<rest>.*)$")


@pytest.fixture(scope="module")
def scored(demo, score, tmp_path_factory):
    """The demo tree, scored as whole images into partitions of site, camera and date."""
    return score(tmp_path_factory.mktemp("out") / "tables", demo.folder)


def faces_of(text):
    return [match.groupdict() for line in text.splitlines() if (match := FACE_LINE.match(line))]


def picture_of(folder, uri, suffix):
    """The preview of an image, found by the hash of its URI."""
    [path] = folder.glob(f"*-{hashlib.sha256(str(uri).encode()).hexdigest()[:10]}.{suffix}")
    with Image.open(path) as image:
        return image.convert("RGB")


def of_label(row):
    """The probability of the label that a row has; of one that is uncertain, that there is a mask."""
    worn = row["probability_mask"] + (row["probability_incorrect"] or 0.0)
    return row[f"probability_{row['label']}"] if row["label"] != "uncertain" else worn


class TestPreview:
    def test_lines_say_what_the_tables_of_a_run_say(self, demo, scored, tmp_path, capsys):
        rows = {row["image_uri"]: row for row in scored.table(PREDICTIONS).to_pylist()[:9]}
        code = preview([*rows, "--output", str(tmp_path / "p"), "--faces", "whole", "--format", "png"])
        faces = faces_of(capsys.readouterr().out)
        assert code == 0
        assert [face["uri"] for face in faces] == list(rows)
        for face in faces:
            row = rows[face["uri"]]
            assert (face["label"], face["probability"]) == (row["label"], f"{of_label(row):.3f}")
            assert face["rest"].startswith("whole image")
            picture = picture_of(tmp_path / "p", face["uri"], "png")
            assert picture.getpixel((0, picture.height - 1)) == FRAMES[row["label"]]

    def test_images_of_the_same_name_do_not_meet(self, tmp_path, capsys):
        for folder, grey in (("a", 10), ("b", 200)):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "1.png").write_bytes(solid_image(grey))
        out = tmp_path / "p"
        inputs = [str(tmp_path / "*" / "1.png"), str(tmp_path / "a" / "1.png")]  # one of them twice
        assert preview([*inputs, "--output", str(out), "--faces", "whole", "--format", "png"]) == 0
        assert len(list(out.iterdir())) == 2
        for folder, grey in (("a", 10), ("b", 200)):
            picture = picture_of(out, tmp_path / folder / "1.png", "png")
            assert picture.getpixel((240, 240)) == (grey,) * 3
        assert "2 images: 2 faces, 0 images without one, 0 failed; 2 previews" in capsys.readouterr().out

    def test_a_broken_image_has_its_code_on_its_line_and_the_others_are_shown(self, tmp_path, capsys):
        good = solid_image(120)
        files = {"a.png": good, "b.png": b"", "c.png": good[:40], "e.png": good}
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        inputs = [str(tmp_path / f"{name}.png") for name in "abcde"]
        code = preview([*inputs, "--output", str(tmp_path / "p"), "--faces", "whole"])
        said = capsys.readouterr()
        assert code == 3 and code in EXIT_CODES
        codes = re.findall(r"(\w)\.png  failed  (\w+):", said.out)
        assert codes == [("b", "empty_file"), ("c", "corrupt_image"), ("d", "not_found")]
        assert [face["uri"] for face in faces_of(said.out)] == [inputs[0], inputs[4]]
        assert len(list((tmp_path / "p").iterdir())) == 2
        assert "expected 5 that can be scored, received 2" in said.err
        assert said.err.endswith("The lines above say why. The other images are shown.\n")

    def test_where_none_can_be_shown_none_is_said_to_be(self, tmp_path, capsys):
        (tmp_path / "b.png").write_bytes(b"")
        assert preview([str(tmp_path / "b.png"), "--output", str(tmp_path / "p"), "--faces", "whole"]) == 3
        said = capsys.readouterr().err
        assert said.endswith("images: expected 1 that can be scored, received 0. The lines above say why.\n")

    def test_an_image_without_a_face_says_so(self, tmp_path, capsys):
        Image.new("RGB", (300, 200), (20, 90, 40)).save(tmp_path / "green.png")
        assert preview([str(tmp_path / "green.png"), "--output", str(tmp_path / "p"), "--format", "png"]) == 0
        assert re.search(r"green\.png  no face  green-\w{10}\.png$", capsys.readouterr().out, re.MULTILINE)
        assert picture_of(tmp_path / "p", tmp_path / "green.png", "png").getpixel((479, 319)) == GREY

    @pytest.mark.data
    @pytest.mark.parametrize(("kind", "label"), [("WithMask", "mask"), ("WithoutMask", "no_mask")])
    def test_a_found_face_is_boxed_where_it_is(self, data_folder, tmp_path, capsys, kind, label):
        with Image.open(sorted((data_folder / f"k12/Test/{kind}").iterdir())[0]) as crop:
            face = crop.convert("RGB").resize((400, 400))
        scene = Image.new("RGB", (2400, 1600), (110, 120, 100))
        scene.paste(face, (1500, 600))
        scene.save(tmp_path / "large.jpg", quality=95)
        folder = tmp_path / "p"
        assert preview([str(tmp_path / "large.jpg"), "--output", str(folder), "--format", "png"]) == 0
        [face] = faces_of(capsys.readouterr().out)
        assert face["label"] == label
        width, height, left, top = map(int, re.findall(r"\d+", face["rest"])[:4])
        assert 1450 < left < 1650 and 550 < top < 750 and 200 < width < 450 and 250 < height < 500
        picture = picture_of(folder, tmp_path / "large.jpg", "png")
        assert picture.size == (1600, 1067)
        # The box's left and right lines, in pixels of the preview; rounded twice.
        middle = round((top + height / 2) / 1.5)
        for x in (left / 1.5 + 1, (left + width) / 1.5 - 2):
            near = [picture.getpixel((round(x) + step, middle)) for step in (-1, 0, 1)]
            assert FRAMES[label] in near

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["{in}/a.png"], 2, "--output"),
            (["{in}/*.webp", "--output", "{out}"], 3, "matches files"),
            (["{in}", "--output", "{in}/p"], 2, "outside the input"),
            (["{in}/a.png", "--output", "{out}", "--set", "faces.min_face=3"], 2, "min_face_px"),
            (["{in}/a.png", "--output", "{out}", "--model", "{in}/none"], 4, "none"),
            (["{in}/a.png", "--output", "{in}/a.png/p", "--faces", "whole"], 5, "write"),
        ],
    )
    def test_a_caller_s_mistake_writes_nothing(self, tmp_path, capsys, arguments, code, said):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.png").write_bytes(solid_image(1))
        places = {"in": tmp_path / "in", "out": tmp_path / "out"}
        assert preview([argument.format(**places) for argument in arguments]) == code
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
        assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]

    def test_the_list_of_commands_names_it(self, capsys):
        assert main.main(["--help"]) == 0
        assert re.search(r"^  preview +draw boxes, labels", capsys.readouterr().out, re.MULTILINE)


class TestSheet:
    def test_tiles_of_a_partitioned_output_of_whole_images(self, scored, tmp_path, capsys):
        path = tmp_path / "look.png"
        assert inspect([str(scored.folder), "--sheet", "3", "--sheet-output", str(path)]) == 0
        said = capsys.readouterr().out
        rows = {row["image_uri"]: row for row in scored.table(PREDICTIONS).to_pylist()}
        tiles = re.findall(r"^ +(\d+)  (\w+)(?:, mask)? ([\d.]+) +face 0  (\S+)  (.+)$", said, re.MULTILINE)
        assert [int(number) for number, *_ in tiles] == list(range(1, len(tiles) + 1))
        for _, label, probability, uri, place in tiles:
            row = rows[uri]
            assert (label, probability) == (row["label"], f"{of_label(row):.3f}")
            assert f"  {label}, mask {probability} " in said or label != "uncertain"
            assert place.startswith(f"{row['site']} · {row['camera']}")
            assert place.endswith(f"{row['captured_at']:%Y-%m-%d %H:%M}Z")
        # The second section has three tiles, the surest masks. Above it are the head, a title, a row and its own title.
        surest = sorted((row["probability_mask"] for row in rows.values() if row["label"] == "mask"), reverse=True)[:3]
        assert [float(p) for _, _, p, *_ in tiles[3:6]] == [pytest.approx(value, abs=6e-4) for value in surest]
        with Image.open(path) as image:
            sheet = image.convert("RGB")
        left, top = 12 + 164, 44 + 40 + 214 + 40
        assert sheet.getpixel((left + 1, top + 1)) == BLUE
        with Image.open(tiles[4][3]) as source:
            scale = 144 / max(source.size)
            width, height = (round(side * scale) for side in source.size)
            expected = np.asarray(source.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), int)
        corner = (left + 4 + (144 - width) // 2, top + 4 + (144 - height) // 2)
        shown = np.asarray(sheet.crop((*corner, corner[0] + width, corner[1] + height)), int)
        assert np.abs(shown - expected).mean() < 6  # a JPEG may be decoded at reduced scale

    def test_images_gone_or_changed_are_grey_and_say_so(self, demo, score, tmp_path, capsys):
        folder = tmp_path / "in"
        folder.mkdir()
        for name, grey in (("a.png", 40), ("b.png", 90), ("c.png", 240)):
            (folder / name).write_bytes(solid_image(grey))
        score(tmp_path / "tables", folder, template=None)
        before = {path: path.read_bytes() for path in (tmp_path / "tables").rglob("*") if path.is_file()}
        (folder / "a.png").unlink()
        (folder / "b.png").write_bytes(solid_image(91))
        capsys.readouterr()
        path = tmp_path / "s.png"
        assert inspect([str(tmp_path / "tables"), "--sheet", "9", "--sheet-output", str(path)]) == 0
        said = capsys.readouterr().out
        lines = [line for line in said.splitlines() if re.match(r" +\d+  ", line)]
        assert len(lines) == 9  # least sure, surest of their label, random: each image thrice
        for name, words in (
            ("a", "(gone since it was scored)"),
            ("b", "(changed since it was scored)"),
            ("c", "c.png"),
        ):
            assert sum(line.endswith(words) and f"{name}.png" in line for line in lines) == 3
        assert "6 tiles are grey because their images are gone, changed or unreadable" in said
        numbers = {name: next(i for i, line in enumerate(lines[:3]) if f"{name}.png" in line) for name in "abc"}
        with Image.open(path) as sheet:
            for name, colour in (("a", GREY), ("b", GREY), ("c", (240,) * 3)):
                assert sheet.convert("RGB").getpixel((12 + numbers[name] * 164 + 10, 84 + 10)) == colour
        after = {path: path.read_bytes() for path in (tmp_path / "tables").rglob("*") if path.is_file()}
        assert after == before  # what is shown is stored nowhere in the output

    def test_images_without_a_face_have_a_row_of_their_own(self, score, tmp_path, capsys):
        folder = tmp_path / "in"
        folder.mkdir()
        Image.new("RGB", (200, 200), (20, 90, 40)).save(folder / "green.png")
        score(tmp_path / "tables", folder, template=None, faces="detect")
        capsys.readouterr()
        path = tmp_path / "s.png"
        assert inspect([str(tmp_path / "tables"), "--sheet", "2", "--sheet-output", str(path)]) == 0
        assert "images without a face, at random (seed 0): 1 of 1" in capsys.readouterr().out
        with Image.open(path) as sheet:
            assert sheet.convert("RGB").getpixel((12 + 1, 84 + 1)) == GREY
            assert sheet.convert("RGB").getpixel((12 + 76, 84 + 76)) == (20, 90, 40)

    @pytest.mark.parametrize(
        ("flags", "code", "said"),
        [(["--sheet", "0"], 2, "1 to 200"), (["--sheet", "3", "--sheet-output", "{out}/s.jpg"], 2, ".png")],
    )
    def test_a_caller_s_mistake_is_refused(self, scored, tmp_path, capsys, flags, code, said):
        assert inspect([str(scored.folder), *(flag.format(out=tmp_path) for flag in flags)]) == code
        assert said in capsys.readouterr().err

    def test_without_a_sheet_tables_are_shown_as_before(self, scored, capsys):
        assert inspect([str(scored.folder), "--rows", "2"]) == 0
        assert "compliance, level all: 1 groups" in capsys.readouterr().out
