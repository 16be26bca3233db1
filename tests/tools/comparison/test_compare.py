"""`python -m tools.compare` and the history on the page of `maskdet evaluate`, on drawn faces."""

import io
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from maskdet.cli import main
from maskdet.demo.drawing import draw_face
from maskdet.model.bundle import BUILTIN_FOLDER
from tools.compare import main as compare_command
from tools.comparison.text import BEGIN, END

SEEDS = 32


def draw(folder, kinds):
    """Faces of increasing seeds: ``(official split, class)`` in turn; each a file of its own group."""
    for seed in range(SEEDS):
        split, kind = kinds[seed % len(kinds)]
        stream = io.BytesIO()
        draw_face(np.random.default_rng(seed), 96, kind == "masked").save(stream, "PNG")
        path = folder / split / kind / f"{seed:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A finished training manifest of 16 drawn faces in train and 16 in test, half of each masked."""
    root = tmp_path_factory.mktemp("prepared")
    draw(root / "drawn", [(split, kind) for split in ("Train", "Test") for kind in ("masked", "bare")])
    source = {"input": str(root / "drawn"), "labels": {"masked": "mask", "bare": "no_mask"}}
    source["splits"] = {"Train": "train", "Test": "test"}
    (root / "prepare.yaml").write_text(yaml.safe_dump({"sources": {"drawn": source}}))
    command = ["prepare", "--config", str(root / "prepare.yaml"), "--output", str(root / "manifest"), "--quiet"]
    assert main.main(command) == 0
    return root


@pytest.fixture(scope="module")
def compare(prepared):
    """Run `python -m tools.compare`: ``compare(folder, *flags)`` → exit code; all its files are in the folder."""
    manifest = str(prepared / "manifest" / "images.parquet")
    tree = {
        "models": {
            "built_in": {"uri": "builtin", "trained_on": {"drawn": {"official_split": ["train"]}}},
            "absent": {"uri": str(prepared / "none"), "optional": True, "command": "maskdet train | so"},
        },
        "data": {
            "all": {"title": "all of it", "source": "drawn", "manifest": manifest},
            "official": {
                "title": "official test",
                "source": "drawn",
                "manifest": manifest,
                "part": {"official_split": ["test"]},
            },
            "folder": {"title": "folder", "source": "elsewhere", "external_only": True},
        },
        "resamples": 100,
        "robustness": {"data": ["official"], "sides_px": [24], "widths_px": [50], "max_images_per_class": 5},
    }
    truth = {"mask": ["masked"], "no_mask": ["bare"]}
    tree["data"]["folder"] |= {"input": [str(prepared / "drawn" / "Test")], "truth": truth}

    def run(folder, *flags):
        (folder / "compare.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        config = ["--config", str(folder / "compare.yaml"), "--output", str(folder / "out"), "--quiet"]
        return compare_command([*config, *flags])

    return run


@pytest.fixture(scope="module")
def folder(compare, tmp_path_factory):
    """One comparison that the tests of this module only read."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "card.md").write_text(f"# Card\n{BEGIN}\n{END}\nend\n")
    assert compare(folder, "--card", str(folder / "card.md")) == 0
    return folder


def rows_of(folder):
    return json.loads((folder / "out" / "compare.json").read_text())["rows"]


def test_every_model_and_shortcut_has_a_row_in_every_data_set(folder):
    found = [(row["data"], row["model"].split(" ")[0], row["relation"]) for row in rows_of(folder)]
    shortcuts = [("image", None), ("border", None)]
    expected = [
        *(("all", name, kind) for name, kind in [("built_in", "trained"), ("absent", "external"), *shortcuts]),
        *(("official", name, kind) for name, kind in [("built_in", "disjoint"), ("absent", "external"), *shortcuts]),
        *(("folder", name, kind) for name, kind in [("built_in", "external"), ("absent", "external"), *shortcuts]),
    ]
    assert found == expected
    counted = {row["data"]: row["images_trained"] for row in rows_of(folder) if row["model"] == "built_in"}
    assert counted == {"all": SEEDS / 2, "official": 0, "folder": None}
    assert {row["note"] for row in rows_of(folder) if row["model"] == "absent"} == {"not made here: maskdet train | so"}


def test_rows_are_the_evaluations(folder):
    for row in rows_of(folder):
        if row["model"] != "built_in":
            continue
        found = json.loads((folder / "out" / "built_in" / row["data"] / "metrics.json").read_text())
        assert row["images"] == (SEEDS if row["data"] == "all" else SEEDS / 2)
        assert (row["masked_right"], row["masked"]) == (found["confusion"]["mask"]["mask"], row["images"] / 2)
        labels = found["classes"]["confusion"]
        assert row["masked_right"] - row["masked_as_incorrect"] == labels["mask"]["mask"]
        assert row["unmasked_as_incorrect"] == labels["no_mask"]["incorrect"]
        assert row["accuracy"] == (row["masked_right"] + row["unmasked_right"]) / row["images"]
        assert (row["ece"], row["ece_low"]) == tuple(found["metrics"]["ece"][key] for key in ("value", "low"))


def test_the_official_test_set_and_its_folder_give_one_result(folder):
    official, plain = (
        next(row for row in rows_of(folder) if row["data"] == data and row["model"] == "built_in")
        for data in ("official", "folder")
    )
    assert all(official[name] == plain[name] for name in ("masked_right", "unmasked_right", "roc_auc", "ece"))


def test_tables_hold_the_same_and_describe_their_columns(folder):
    table = pq.read_table(folder / "out" / "compare.parquet")
    assert [{**row, "confidence": 0.95} for row in rows_of(folder)] == table.to_pylist()
    views = pq.read_table(folder / "out" / "robustness.parquet")
    assert views["view"].to_pylist() == [
        "plain",
        "longer side 24 px",
        "longer side 24 px, blurred",
        "every width 50 px",
    ]
    assert set(views["masked"].to_pylist()) == set(views["unmasked"].to_pylist()) == {5}
    assert all(field.metadata[b"description"] for schema in (table.schema, views.schema) for field in schema)


def test_the_card_holds_the_text_between_its_marks(folder):
    text = (folder / "out" / "compare.md").read_text()
    assert (folder / "card.md").read_text() == f"# Card\n{BEGIN}\n\n{text.strip()}\n\n{END}\nend\n"
    assert re.search(r"^\| official test \| built_in \| same source, other groups \| 16 \|", text, re.MULTILINE)
    assert "not made here: maskdet train | so" in text
    assert f"--card {folder}/card.md`" in text


def test_each_row_s_command_makes_it_again(folder, tmp_path):
    row = rows_of(folder)[0]
    copy = tmp_path / "again"
    config = row["command"].split(" --config ")[1]
    assert main.main(["evaluate", "--config", config, "--output", str(copy), "--quiet"]) == 0
    before = (folder / "out" / "built_in" / "all" / "metrics.parquet").read_bytes()
    assert (copy / "metrics.parquet").read_bytes() == before


def test_a_second_run_keeps_what_is_finished(compare, folder, capsys):
    out = folder / "out"
    kept = [out / "built_in" / "official" / "metrics.json", out / "robustness" / "built_in.json"]
    written = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    times = [path.stat().st_mtime_ns for path in kept]
    assert compare(folder, "--card", str(folder / "card.md")) == 0
    # The images of a folder have to be listed; those of a training manifest are known.
    done = re.findall(r"built_in on (\w+): (\w+)", capsys.readouterr().out)
    assert done == [("all", "kept"), ("official", "kept"), ("folder", "evaluated")]
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == written


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--card", "{folder}/compare.yaml"), 2, "once each"),
        (("--set", "models.absent.optional=false"), 4, "model bundle"),
        (("--set", "data.official.source=drown"), 3, "data.official.source: expected sources of a manifest"),
        (("--set", "data.official.manifest={folder}/images.parquet"), 3, "Run maskdet prepare"),
        (("--set", "robustness.models=[other]"), 2, "robustness.models"),
        (("--set", "models={}"), 2, "models"),
    ],
)
def test_mistakes_of_the_caller_end_with_their_code(compare, tmp_path, capsys, flags, code, said):
    assert compare(tmp_path, *(flag.replace("{folder}", str(tmp_path)) for flag in flags)) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "compare.json").exists()


def test_the_page_draws_the_training_where_its_history_lies_beside_the_bundle(prepared, tmp_path):
    shutil.copytree(BUILTIN_FOLDER, tmp_path / "model")
    truth = ("--set", "truth.mask=[masked]", "--set", "truth.no_mask=[bare]", "--set", "intervals.resamples=100")
    command = ["evaluate", "--input", str(prepared / "drawn"), "--model", str(tmp_path / "model"), *truth, "--quiet"]
    assert main.main([*command, "--output", str(tmp_path / "without")]) == 0
    assert "<h2>Training</h2>" not in (tmp_path / "without" / "report.html").read_text()
    (tmp_path / "model.history.csv").write_text("epoch,loss,val_loss\n0,0.5,0.7\n1,0.25,0.6\n")
    assert main.main([*command, "--output", str(tmp_path / "with")]) == 0
    page = (tmp_path / "with" / "report.html").read_text()
    assert "<h2>Training</h2>" in page
    assert "2 epochs, from" in page
    # ROC: a mask or none, two classes against the rest; reliability, histogram; of the training only the loss
    assert page.count('class="chart"') == 6
    assert "epoch 2, validation: 0.6000" in page
