"""The short form of the hostile corpus, and fuzz targets for all code that reads what others wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskdet.config import SourceSettings
from maskdet.errors import ConfigError, FailureCode, ImageFault, MaskdetError
from maskdet.images.codecs import PILLOW, load_codecs
from maskdet.images.preprocessing import ImageLimits, decode_upright, prepare_image
from maskdet.inputs.listing import check_input, input_tasks, list_images, split_task
from maskdet.inputs.references import partition_path
from maskdet.templates import PathTemplate
from tests.hostile.corpus import MUTATIONS, bases, corpus, mutant
from tests.hostile.digests import digest

SEED, COUNT = 20, 300
FAST = load_codecs("fast")


def test_a_mutant_is_named_by_its_seed_and_number():
    assert mutant(3, 5) == mutant(3, 5)
    assert {mutant(seed, 5).data for seed in range(5)} != {mutant(0, 5).data}
    made = list(corpus(SEED, COUNT))
    assert len({one.name for one in made}) == COUNT
    assert {one.mutation for one in made} == set(MUTATIONS)
    assert len({one.kind for one in made}) > len(bases()) * 0.8


@pytest.mark.parametrize("kind", sorted(bases()))
def test_every_base_is_whole(kind):
    if kind == "tif fax":
        with pytest.raises(ImageFault, match="compression 4"):
            decode_upright(bases()[kind], ImageLimits())
        return
    upright = decode_upright(bases()[kind], ImageLimits())
    assert (upright.width_px, upright.height_px, upright.damaged) == (160, 160, False)


@pytest.mark.parametrize("mode", ["whole", "detect"])
def test_a_run_over_the_corpus_accounts_for_every_file(mode, tmp_path, score):
    images = tmp_path / "images"
    images.mkdir()
    for one in corpus(SEED, COUNT):
        (images / one.name).write_bytes(one.data)
    output = score(
        tmp_path / "tables", images, flags=("--set", "failure_budget.max_ratio=1.0"), template=None, faces=mode
    )
    counts = output.run.images
    assert (output.code, output.succeeded) == (0, True)
    assert (counts.listed, counts.accounted, counts.skipped) == (COUNT, COUNT, 0)
    named = output.table("failures")["image_uri"].to_pylist()
    seen = {*output.table("predictions")["image_uri"].to_pylist(), *output.table("no_face")["image_uri"].to_pylist()}
    assert len(named) == len(set(named)) == counts.failed
    assert {Path(uri).name for uri in {*named, *seen}} == {one.name for one in corpus(SEED, COUNT)}
    assert not seen & set(named)
    assert set(output.run.failed_by_code) <= {code.value for code in FailureCode}
    messages = output.table("failures")["message"].to_pylist()
    assert not [message for message in messages if " at 0x" in message]


def test_both_codecs_give_every_file_the_same_answer():
    answers = [(digest(one.data, FAST), digest(one.data, PILLOW)) for one in corpus(SEED, COUNT)]
    assert [number for number, (fast, pillow) in enumerate(answers) if fast != pillow] == []
    whole = [number for number, one in enumerate(corpus(SEED, COUNT)) if one.mutation == "none"]
    assert Counter("False" in answers[number][0] for number in whole)[True] > len(whole) * 0.8


def test_no_answer_hangs_on_what_memory_held_before(tmp_path):
    found = []
    for fill in (85, 170):
        output = tmp_path / f"{fill}.json"
        command = [sys.executable, "-m", "tests.hostile.digests", str(SEED), "120", str(output)]
        environment = os.environ | {"MALLOC_PERTURB_": str(fill)}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, cwd=Path(__file__).parents[2])
        assert done.returncode == 0, done.stderr[-500:]
        found.append(output.read_text().partition('"slowest"')[0])
    assert found[0] == found[1]


# What fuzzing the decoder found: seed and number of mutants that once had two answers or took too long.
@pytest.mark.parametrize(("seed", "number"), [(1, 853)])
def test_what_was_found_once_stays_mended(seed, number):
    data = mutant(seed, number).data
    assert digest(data, FAST, keep=True) == digest(data, PILLOW, keep=True)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(bases())), st.data())
def test_fuzz_imaging(kind, draw):
    data = bytearray(bases()[kind])
    for _ in range(draw.draw(st.integers(0, 5))):
        place, change = draw.draw(st.integers(0, len(data) - 1)), draw.draw(st.binary(max_size=8))
        data[place : place + draw.draw(st.sampled_from([0, len(change)]))] = change
    try:
        image = prepare_image(bytes(data), 24, 24, ImageLimits(max_pixels=1_000_000), codecs=FAST)
    except ImageFault:
        return
    assert image.pixels.shape == (24, 24, 3)


LINES = st.lists(
    st.one_of(
        st.text(max_size=20).map(str.encode),
        st.binary(max_size=20),
        st.sampled_from(
            [b"uri,site", b"uri;site", b"a.jpg,x", b"/etc/passwd,y", b'"a,b', b"a.jpg,x,y", b"\0", b"../a,z"]
        ),
    ),
    max_size=12,
)


@settings(max_examples=200, deadline=None)
@given(LINES, st.sampled_from(["m.csv", "m.tsv", "m.txt", "m.csv.gz", "m.parquet"]), st.booleans(), st.data())
def test_fuzz_manifests(tmp_path_factory, lines, name, headed, draw):
    folder = tmp_path_factory.mktemp("fuzz")
    content = (b"uri,site\n" if headed else b"") + draw.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])).join(lines)
    (folder / name).write_bytes(content)
    source = SourceSettings(keys=("site",))
    try:
        tasks = input_tasks([str(folder / name)], source)
        for task in tasks:
            check_input(task, source)
        parts = [part for task in tasks for part in split_task(task)]
        refs = [ref for part in parts for batch in list_images(part, source) for ref in batch.refs]
    except MaskdetError:
        return
    for ref in refs:
        assert ref.problem is not None or ref.uri.startswith(f"{folder}/")
        partition_path(["site"], ref.keys)
        assert "/.." not in ref.uri or ref.problem is not None
    assert pa.array([ref.uri for ref in refs], pa.string()).null_count == 0


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["{site}", "{captured_at:%Y-%m-%d}", "*", "**", "/", "-", ".jpg", "{"]), st.text(max_size=4)
        )
    ),
    st.text(max_size=60),
)
def test_fuzz_templates(pieces, path):
    try:
        template = PathTemplate("".join(pieces))
    except ConfigError:
        return
    for found in (template.match(path), template.match_tail(path)):
        assert found is None or all("/" not in key and key for key in found.keys)
