"""The public API: the same results as the command line, typed predictions, errors with a remedy."""

import doctest
import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import maskdet
from maskdet import api
from maskdet.config import FacesSettings
from maskdet.demo.faces import DEMO_TEMPLATE
from maskdet.errors import ConfigError
from maskdet.inputs.sharding import KeyRule
from maskdet.labels import Decision
from maskdet.resolved import ResolvedFaces
from maskdet.scoring import predicting
from maskdet.scoring.predicting import FaceModel, image_bytes, prediction_of
from maskdet.scoring.scorer import ScoreOptions
from maskdet.testing import brightness_model, solid_image


@pytest.fixture(scope="module")
def brightness():
    """A model whose probability of a mask is the mean of the image over 255."""
    decision = Decision(no_mask_below=0.25, mask_from=0.75)
    options = ScoreOptions(KeyRule((), ()), decision, faces=ResolvedFaces(mode="whole"))
    return FaceModel(brightness_model(), options)


class TestImport:
    def test_examples_of_the_documentation_hold(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        failed, tried = doctest.testmod(api)
        assert (failed, tried > 10) == (0, True)

    def test_importing_the_package_imports_nothing_heavy(self):
        code = (
            "import sys, maskdet; assert 'score' in dir(maskdet);"
            "sys.exit(any(name in sys.modules for name in ('numpy', 'pyarrow', 'apache_beam', 'PIL', 'pydantic')))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_scoring_starts_without_evaluation(self):
        code = "import sys, maskdet.cli.score; sys.exit('maskdet.evaluation.results' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_every_public_name_is_there(self):
        assert all(getattr(maskdet, name) is not None for name in maskdet.__all__)
        with pytest.raises(AttributeError, match="no attribute 'scores'"):
            maskdet.scores  # noqa: B018


class TestScore:
    def test_tables_are_those_of_the_command(self, demo, score, tmp_path):
        command = score(tmp_path / "command", demo.folder, flags=("--set", "failure_budget.max_ratio=1"))
        assert command.code == 0
        result = maskdet.score(
            demo.folder,
            tmp_path / "api",
            faces="whole",
            template=DEMO_TEMPLATE,
            failure_budget={"max_ratio": 1.0},
            compliance={"levels": {"site_hour": ["site", "date", "hour"], "camera": ["camera"]}},
        )
        assert result.run.images == command.run.images
        assert type(command)(0, tmp_path / "api").contents() == command.contents()
        assert result.failures().num_rows == command.run.images.failed
        assert result.no_face().num_rows == 0
        groups = result.compliance("camera")
        assert sum(groups["faces"].to_pylist()) == result.predictions().num_rows == command.run.images.scored

    def test_keys_that_are_folders_are_columns_too(self, demo, tmp_path):
        tables, budget = {"partition_by": ["site", "date"]}, {"max_ratio": 1.0}
        result = maskdet.score(
            demo.folder, tmp_path / "t", faces="whole", template=DEMO_TEMPLATE, tables=tables, failure_budget=budget
        )
        rows = result.predictions().to_pylist()
        assert {row["site"] for row in rows} == {row["image_uri"].split("/")[-5] for row in rows}
        assert all(row["date"] == row["captured_at"].date() for row in rows)

    def test_settings_go_over_a_config(self, demo, tmp_path):
        config = tmp_path / "score.yaml"
        config.write_text(
            "faces: {mode: whole, min_face_px: 99}\npacking: {max_images: 3}\nfailure_budget: {max_ratio: 1}\n"
        )
        result = maskdet.score(demo.folder, tmp_path / "t", config=config, faces={"min_face_px": 50})
        assert result.settings.faces.min_face_px == 50
        assert (result.settings.faces.mode, result.settings.packing.max_images) == ("whole", 3)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"face": "whole"}, "unknown key 'face', did you mean 'faces'"),
            ({"faces": "all"}, r"faces.mode: .*received 'all'"),
            ({"faces": {"min_face": 3}}, "unknown key 'faces.min_face', did you mean 'min_face_px'"),
            ({"beam_options": ["--no_such_flag"]}, "--no_such_flag"),
        ],
    )
    def test_a_mistake_is_told_before_anything_is_read(self, settings, message, tmp_path):
        with pytest.raises(ConfigError, match=message):
            maskdet.score(tmp_path / "nothing", tmp_path / "t", **settings)

    def test_a_run_that_fails_its_budget_raises(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "a.jpg").write_bytes(b"no image")
        with pytest.raises(maskdet.MaskdetError, match=r"received 1 \{'not_an_image': 1\}"):
            maskdet.score(tmp_path / "in", tmp_path / "t", faces="whole")


class TestEvaluate:
    def test_figures_come_back_and_files_are_written(self, tmp_path):
        for name, value in (("with_mask", 250), ("without_mask", 5)):
            (tmp_path / "in" / name).mkdir(parents=True)
            for number in range(3):
                (tmp_path / "in" / name / f"{number}.png").write_bytes(solid_image(value - number))
        found = maskdet.evaluate(tmp_path / "in", tmp_path / "out", intervals={"resamples": 100})
        assert found.run.images.scored == 6
        assert set(found.confusion) == {"mask", "no_mask"}
        assert (tmp_path / "out" / "report.html").is_file()


class TestPredict:
    def test_every_form_of_an_image_gives_the_same(self, brightness, tmp_path):
        pixels = np.full((20, 30, 3), 204, np.uint8)
        path = tmp_path / "a.png"
        Image.fromarray(pixels).save(path)
        forms = [pixels, pixels[:, :, 0], Image.fromarray(pixels), path, str(path), path.read_bytes(), pixels[::-1]]
        found = brightness.predict(forms)
        assert [prediction.labels for prediction in found] == [("mask",)] * len(forms)
        for prediction in found:
            assert prediction.faces[0].probabilities["mask"] == pytest.approx(0.8, abs=1e-6)
            assert prediction.faces[0].probabilities["no_mask"] == pytest.approx(0.2, abs=1e-6)
            assert (prediction.width_px, prediction.height_px) == (30, 20)
            assert prediction.faces[0].box is None

    def test_order_is_kept_over_chunks_and_repeats(self, brightness, tmp_path, monkeypatch):
        monkeypatch.setattr(predicting, "_CHUNK_IMAGES", 4)
        path = tmp_path / "b.png"
        path.write_bytes(solid_image(51))
        images = [np.full((9, 9, 3), value, np.uint8) for value in range(0, 250, 25)]
        found = brightness.predict([path, *images, path, path])
        expected = [51, *range(0, 250, 25), 51, 51]
        assert [p.faces[0].probabilities["mask"] for p in found] == pytest.approx([v / 255 for v in expected], abs=1e-6)
        assert [p.labels[0] for p in found] == [
            "no_mask" if v / 255 < 0.25 else "mask" if v / 255 >= 0.75 else "uncertain" for v in expected
        ]

    def test_a_broken_image_costs_the_others_nothing(self, brightness, tmp_path):
        truncated = Image.open(io.BytesIO(_photograph()[:-2000]))
        found = brightness.predict([b"", np.zeros((9, 9, 3), np.uint8), tmp_path / "none.jpg", truncated, b"text"])
        codes = [prediction.fault and prediction.fault.code.value for prediction in found]
        assert codes == ["empty_file", None, "not_found", "corrupt_image", "not_an_image"]
        assert [prediction.labels for prediction in found] == [(), ("no_mask",), (), (), ()]

    @pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16"])
    def test_pillow_images_decode_as_their_files(self, mode):
        rng = np.random.default_rng(3)
        base = Image.fromarray(rng.integers(0, 256, (16, 24, 3)).astype(np.uint8))
        image = (
            Image.fromarray(rng.integers(0, 65536, (16, 24)).astype(np.uint16))
            if mode == "I;16"
            else base.convert(mode)
        )
        exif = Image.Exif()
        exif[0x0112] = 6
        stream = io.BytesIO()
        image.save(stream, "TIFF" if mode == "CMYK" else "PNG", exif=exif)
        from_file = Image.open(io.BytesIO(stream.getvalue()))
        limits = predicting.ImageLimits()
        expected, size = maskdet.images.preprocessing.open_upright(stream.getvalue(), limits)
        found, found_size = maskdet.images.preprocessing.open_upright(image_bytes(from_file), limits)
        assert size == found_size == (16, 24)  # rotated by its EXIF
        assert np.array_equal(np.asarray(expected), np.asarray(found))

    @pytest.mark.parametrize(
        ("image", "received"),
        [
            (np.zeros((4, 4, 3)), "float64 (4, 4, 3)"),
            (np.zeros((4, 4, 4), np.uint8), "uint8 (4, 4, 4)"),
            (np.zeros((0, 4, 3), np.uint8), "uint8 (0, 4, 3)"),
            ([[1]], "list"),
        ],
    )
    def test_what_is_no_image_is_refused(self, brightness, image, received):
        with pytest.raises(ConfigError) as refused:
            brightness.predict([image])
        assert refused.value.received == received

    def test_a_single_image_is_refused_with_the_remedy(self, brightness):
        with pytest.raises(ConfigError, match=r"predict\(\[image\]\)"):
            brightness.predict("a.jpg")

    def test_what_is_at_hand_is_forgotten(self, brightness):
        brightness.predict([np.zeros((9, 9, 3), np.uint8), b"x"])
        assert not brightness._source._at_hand

    def test_a_row_of_three_classes_keeps_them(self):
        row = {"probability_mask": 0.2, "probability_incorrect": 0.5, "probability_no_mask": 0.3, "label": "incorrect"}
        sides = dict.fromkeys(("face_left_px", "face_top_px", "face_width_px", "face_height_px"), 4.0)
        found = prediction_of({**row, **sides, "face_score": 0.9})
        assert found.probabilities == {"mask": 0.2, "incorrect": 0.5, "no_mask": 0.3}
        assert found.box == (4.0, 4.0, 4.0, 4.0)


class TestFaces:
    def test_faces_are_those_of_a_run(self, tmp_path):
        photograph = _photograph()
        path = tmp_path / "in" / "a.jpg"
        path.parent.mkdir()
        path.write_bytes(photograph)
        found = maskdet.find_faces(path)
        rows = maskdet.score(path, tmp_path / "t", faces="detect").predictions().to_pylist()
        assert [tuple(face.box) for face in found] == [
            pytest.approx([row[f"face_{side}_px"] for side in ("left", "top", "width", "height")]) for row in rows
        ]
        assert [face.score for face in found] == pytest.approx([row["face_score"] for row in rows])

    def test_a_broken_image_raises(self):
        with pytest.raises(maskdet.ImageFault, match="no BMP"):
            maskdet.find_faces(b"text")

    def test_settings_are_checked(self):
        with pytest.raises(ConfigError, match="min_face_px"):
            maskdet.find_faces(np.zeros((9, 9, 3), np.uint8), min_face=3)

    def test_settings_may_be_the_section_itself(self):
        tree = api.settings_tree({"faces": "detect", "template": "{site}/*"})
        assert tree == {"faces": {"mode": "detect"}, "source": {"template": "{site}/*"}}
        loaded = maskdet.config.load_settings(maskdet.config.ScoreSettings, None, {"faces": FacesSettings(max_faces=3)})
        assert loaded.faces == FacesSettings(max_faces=3)


def _photograph():
    from maskdet.demo.drawing import draw_face

    canvas = Image.new("RGB", (400, 300), (90, 120, 150))
    canvas.paste(draw_face(np.random.default_rng(1), 160, masked=False), (40, 60))
    stream = io.BytesIO()
    canvas.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def test_rows_without_files_have_the_columns(tmp_path):
    from maskdet.schemas import failures_schema
    from maskdet.tables.layout import Layout
    from maskdet.tables.reading import read_rows

    rows = read_rows(Layout(str(tmp_path)), "failures", failures_schema(["site"]))
    assert rows.num_rows == 0
    assert rows.schema.field("site").type == pa.string()
