"""A sample: every face's probability is known, and the choice depends on rows and seed alone."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from maskdet.answer_schemas import audit_schema
from maskdet.audit.sampling import allocate, bands, draw_sample
from maskdet.errors import ConfigError
from tests.outputs import face, write_output

NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)


def images(count=400):
    rng = random.Random(3)
    found = []
    for number in range(count):
        faces = []
        for _ in range(rng.choice([1, 2])):
            p = rng.choice([0.02, 0.3, 0.6, 0.95])
            faces.append(face("mask" if p > 0.5 else "no_mask", p))
        found.append((f"/{number}.jpg", ("ab"[number % 2], "c1"), NOW, faces))
    return found


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampling")
    return [write_output(folder / str(limit), images(), max_images=limit) for limit in (1000, 37)]


def test_strata_are_counted_and_chances_follow(layouts):
    sample = draw_sample(layouts[0], 60, ("site",), 1)
    assert sample.schema.names == audit_schema(["site"]).names
    assert sample.num_rows == 60
    rows, edges = sample.to_pylist(), bands(0.5)
    assert edges == (0.0, 0.25, 0.5, 0.75)
    truth = Counter()
    for _, (site, _), _, faces in images():
        for one in faces:
            worn = one["probability_mask"] + one["probability_incorrect"]
            truth[site, max(edge for edge in edges if edge <= worn)] += 1
    for row in rows:
        assert row["stratum_faces"] == truth[row["site"], float(row["band"].split()[1])]
        assert row["inclusion_probability"] == row["stratum_drawn"] / row["stratum_faces"]
    drawn = Counter(row["stratum"] for row in rows)
    assert all(drawn[row["stratum"]] == row["stratum_drawn"] >= 2 for row in rows)
    assert len({(row["image_uri"], row["face_index"]) for row in rows}) == 60
    assert sum(1 / row["inclusion_probability"] for row in rows) == pytest.approx(sum(truth.values()))


def test_the_choice_depends_on_rows_and_seed_alone(layouts):
    first, second = (draw_sample(layout, 60, ("site",), 1) for layout in layouts)
    assert first.equals(second)
    other = draw_sample(layouts[0], 60, ("site",), 2)
    assert set(first["image_uri"].to_pylist()) != set(other["image_uri"].to_pylist())


def test_totals_of_scores_are_those_of_all_faces(layouts):
    rows = draw_sample(layouts[0], 40, (), 1).to_pylist()
    totals = {row["stratum"]: row["stratum_probability_worn"] for row in rows}
    worn = [one["probability_mask"] + one["probability_incorrect"] for *_, faces in images() for one in faces]
    assert sum(totals.values()) == pytest.approx(sum(worn), abs=1e-4)


def test_over_many_seeds_each_face_comes_as_often_as_its_chance_says(layouts):
    seen, chance = Counter(), {}
    for seed in range(150):
        for row in draw_sample(layouts[0], 60, (), seed).to_pylist():
            seen[row["band"]] += 1
            chance[row["band"]] = row["stratum_drawn"]
    assert all(seen[band] == 150 * count for band, count in chance.items())


def test_a_small_output_is_drawn_whole(layouts):
    whole = draw_sample(layouts[0], 10_000, (), 1)
    assert whole.num_rows == sum(len(faces) for *_, faces in images())
    assert set(whole["inclusion_probability"].to_pylist()) == {1.0}


def test_more_goes_where_more_is_unknown():
    drawn = allocate({((), 0): (1000, 0.1), ((), 1): (1000, 0.4), ((), 2): (1, 0.5), ((), 3): (0 + 3, 0.5)}, 100)
    assert sum(drawn.values()) == 100
    assert drawn[(), 2] == 1
    assert drawn[(), 3] in (2, 3)
    assert drawn[(), 1] / drawn[(), 0] == pytest.approx(4, rel=0.15)


@pytest.mark.parametrize(("size", "by", "words"), [(3, ("site",), "--size"), (60, ("person",), "--by")])
def test_what_cannot_be_is_refused(layouts, size, by, words):
    with pytest.raises(ConfigError, match=words):
        draw_sample(layouts[0], size, by, 1)
