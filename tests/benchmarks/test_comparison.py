"""Statistics of a comparison, against values worked out by hand."""

import json

import pytest

from benchmarks.comparison import (
    Run,
    Spread,
    agreement,
    from_record,
    ratios,
    sentences,
    split_table,
    split_time,
    spread,
    table,
    to_record,
)
from maskdet.labels import Decision

LABELS = {"maskdet": "ours", "compact": "small", "bare_loop": "limit", "beam": "Beam", "daft_frame": "Daft"}


def run(name, round_, wall_s, exit_code=0, **more):
    return Run(name, round_, exit_code, wall_s, cpu_s=2 * wall_s, peak_mib=100.0, **more)


ROUNDS = [
    run("maskdet", 1, 2.0, scored=10, agree=1.0),
    run("beam", 1, 10.0, scored=10, agree=0.9),
    run("daft_frame", 1, 6.0),
    run("bare_loop", 1, 1.6),
    run("maskdet", 2, 4.0, scored=9, agree=0.8),
    run("beam", 2, 12.0, scored=10, agree=1.0),
    run("daft_frame", 2, 0.1, exit_code=-9),
    run("bare_loop", 2, 2.0),
]


def test_a_spread_is_the_median_and_the_ends():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([4.0, 1.0, 2.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert spread([1.25, 1.5]).show() == "1.38 (1.25–1.50)"
    assert spread([7.0]).show(".0f") == "7"
    with pytest.raises(ValueError, match="at least one"):
        spread([])


def test_ratios_are_taken_within_a_round_and_only_of_runs_that_ended_well():
    assert ratios(ROUNDS, "beam", "maskdet") == [5.0, 3.0]  # 10 / 2 and 12 / 4, not 11 / 3
    assert ratios(ROUNDS, "daft_frame", "maskdet") == [3.0]
    assert ratios(ROUNDS, "ray_data", "maskdet") == []


def test_agreement_counts_images_left_out_as_decided_otherwise():
    at = Decision()
    reference = {"a": 0.9, "b": 0.1, "c": 0.51, "d": 0.4}
    assert agreement({"a": 0.5, "b": 0.49, "c": 0.5, "d": 0.0}, reference, at) == 1.0
    assert agreement({"a": 0.9, "b": 0.1, "c": 0.49}, reference, at) == 0.5  # c differs, d is missing
    assert agreement({"a": 0.9, "x": 0.1}, reference, at) == 0.25  # x is no image of the reference
    assert agreement({}, reference, at) == 0.0


def test_parts_of_the_time_add_up_to_the_whole():
    parts = split_time(10.0, 1.5, 8.0, {"fetch": 1.0, "decode": 8.0, "detect": 0.0, "infer": 4.0, "write": 0.2}, 2)
    assert parts == pytest.approx(
        {"start": 1.5, "fetch": 0.5, "decode": 4.0, "infer": 2.0, "write": 0.1, "framework": 1.4, "exit": 0.5}
    )
    assert sum(parts.values()) == pytest.approx(10.0)


def test_the_table_is_sorted_by_time_and_shows_failures_last():
    lines = table(ROUNDS, 100, LABELS).splitlines()
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["limit", "ours", "Daft", "Beam", "Daft"]
    cells = [cell.strip() for cell in lines[3].split("|")][1:-1]
    # Rate: 100 images in the median of 2 and 4 s; agreement: the worst round's.
    assert cells == ["ours", "3.00 (2.00–4.00)", "33", "1.00", "6.0 (4.0–8.0)", "100", "9–10", "80.00%"]
    assert lines[5].split("|")[4].strip() == "4.00 (3.00–5.00)"
    assert lines[-1].startswith("| Daft | failed in 1 of 2 runs |")


def test_the_sentences_name_the_best_other_peer_and_the_limit():
    assert sentences(ROUNDS, ["beam", "daft_frame"], LABELS) == [
        "Beam / ours: 4.00 (3.00–5.00)",
        "Daft / ours: 3.00",
        "ours / limit: 1.62 (1.25–2.00)",
    ]
    assert sentences(ROUNDS[:2], ["beam"], LABELS) == ["Beam / ours: 5.00"]


def test_parts_that_a_contestant_does_not_know_stay_empty():
    runs = [
        run("maskdet", 1, 3.0, split={"start": 1.0, "decode": 1.5, "framework": 0.5}),
        run("maskdet", 2, 3.0, split={"start": 2.0, "decode": 0.5, "framework": 0.5}),
        run("bare_loop", 1, 2.0, split={"start": 0.5, "loop": 1.5}),
        run("beam", 1, 9.0),
    ]
    assert split_table(runs, LABELS).splitlines() == [
        "| | start | decode | framework | loop |",
        "|---|---|---|---|---|",
        "| ours | 1.50 | 1.00 | 0.50 |  |",
        "| limit | 0.50 |  |  | 1.50 |",
    ]
    assert split_table([run("beam", 1, 9.0)], LABELS) == ""


def test_a_run_survives_its_line_of_json():
    before = run("maskdet", 3, 1.5, load=0.5, scored=7, agree=0.25, split={"start": 1.0})
    line = json.dumps(to_record(before, data="png", images=7))
    assert from_record(json.loads(line)) == before
    assert json.loads(line)["data"] == "png"
