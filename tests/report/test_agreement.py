"""Two outputs compared face by face, checked against plain code over the rows."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from drawn_output import KEYS, drawn_rows, face, write_drawn
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from maskdet.cli.main import main
from maskdet.compliance.intervals import paired_difference_interval
from maskdet.report.agreement import LEAST_OVERLAP, cohens_kappa, compare, most_different
from maskdet.report.agreement_page import render
from maskdet.report.database import Tables

CLASSES = ("mask", "incorrect", "no_mask")


def overlap(one, other):
    """Intersection over union of two rows' boxes."""

    def ends(row):
        left, top, width, height = (row[f"face_{side}_px"] for side in ("left", "top", "width", "height"))
        if left is None:
            return 0, 0, row["width_px"], row["height_px"]
        return left, top, left + width, top + height

    a, b = ends(one), ends(other)
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def of_image(rows, image):
    return [row for row in rows if (row["image_uri"], row["content_sha256"]) == image]


def paired(old, new):
    """Faces that are each other's best match, image by image."""
    found = []
    for image in sorted({(row["image_uri"], row["content_sha256"]) for row in old}):
        ones, others = of_image(old, image), of_image(new, image)
        for one in ones:
            for other in others:
                same = overlap(one, other)
                best = max(overlap(one, row) for row in others) == same == max(overlap(row, other) for row in ones)
                if best and same >= LEAST_OVERLAP:
                    found.append((one, other))
    return found


@pytest.fixture(scope="module")
def sides():
    """Old and new rows: some faces moved, lost, found, relabelled; some images changed, gone, without a face."""
    random = np.random.default_rng(11)
    faces, faceless, failures = drawn_rows(days=4)
    for row in faces:  # no two boxes of an image alike
        row["face_left_px"] += 50 * row["face_index"]
    later, lost = [], []
    for row in faces:
        if random.random() < 0.08:
            continue
        worn = float(np.clip(row["probability_mask"] + random.normal(0, 0.3), 0, 1))
        changed = {**row, "content_sha256": "f" * 64} if int(row["image_uri"][-5]) == 4 else row
        again = face(changed, row["face_index"], worn, (1 - worn) * float(random.random()) * 0.2)
        again["face_left_px"] = row["face_left_px"] + int(random.integers(0, 14))  # 30 px wide: some no longer overlap
        later.append(again)
    places = Counter()
    for row in later:  # an image's faces are numbered from 0
        row["face_index"] = places[row["image_uri"]]
        places[row["image_uri"]] += 1
    lost += faceless[::2]
    return (faces, faceless, failures), (later, lost, failures)


@pytest.fixture(scope="module")
def outputs(sides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreement")
    for name, rows in zip(("old", "new"), sides, strict=True):
        write_drawn(folder / name, rows)
    return str(folder / "old"), str(folder / "new")


@pytest.fixture(scope="module")
def compared(outputs):
    with Tables(outputs[0]) as old, Tables(outputs[1]) as new:
        found = compare(old, new, 0.9)
        return found, most_different(old, 7), render(old, new, found)


def test_faces_are_paired_by_their_boxes(compared, sides):
    (old, *_), (new, *_) = sides
    pairs = paired(old, new)
    found, *_ = compared
    assert found.labels == Counter((one["label"], other["label"]) for one, other in pairs)
    assert found.faces == len(pairs) > 50
    shared = {(row["image_uri"], row["content_sha256"]) for row in [*new, *sides[1][1], *sides[1][2]]}
    of_old = [row for row in old if (row["image_uri"], row["content_sha256"]) in shared]
    assert found.faces_only[0] == len(of_old) - len(pairs) > 0
    assert found.faces_only[1] > 0


def test_images_are_counted_by_both_outcomes(compared, sides):
    outcomes = []
    for faces, faceless, failures in sides:
        kinds = [("scored", [row for row in faces if row["face_index"] == 0]), ("no_face", faceless)]
        found = {row["image_uri"]: (kind, row["content_sha256"]) for kind, rows in kinds for row in rows}
        outcomes.append(found | {row["image_uri"]: ("failed", None) for row in failures})
    old, new = outcomes
    found, *_ = compared
    both = [(old[uri], new[uri]) for uri in old.keys() & new.keys()]
    same = [(one[0], other[0]) for one, other in both if None in (one[1], other[1]) or one[1] == other[1]]
    assert found.outcomes == Counter(same)
    assert found.images == len(same)
    assert found.changed == len(both) - len(same) > 0
    assert found.only == (len(old.keys() - new.keys()), len(new.keys() - old.keys()))


def test_agreement_and_kappa_are_those_of_scikit_learn(compared):
    found, *_ = compared
    one, other = zip(*(pair for pair, number in found.labels.items() for _ in range(number)), strict=True)
    assert found.agreement == pytest.approx(np.mean(np.array(one) == np.array(other)), abs=1e-12)
    assert found.kappa == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)


def test_kappa_is_not_said_where_chance_agrees_always():
    assert cohens_kappa({("mask", "mask"): 5}) is None
    assert cohens_kappa({}) is None
    assert cohens_kappa(
        {("mask", "mask"): 20, ("mask", "no_mask"): 5, ("no_mask", "mask"): 10, ("no_mask", "no_mask"): 15}
    ) == (
        pytest.approx(0.4)  # the textbook's example: .7 observed, .5 by chance
    )


@pytest.mark.parametrize(("name", "counted"), [("any_mask_rate", CLASSES[:2]), ("correct_rate", CLASSES[:1])])
def test_rates_and_their_intervals_are_those_of_the_formula(compared, sides, name, counted):
    pairs = [
        (one["image_uri"], one["label"] in counted, other["label"] in counted)
        for one, other in paired(sides[0][0], sides[1][0])
        if "uncertain" not in (one["label"], other["label"])
    ]
    images = sorted({uri for uri, *_ in pairs})
    n = np.array([sum(uri == image for uri, *_ in pairs) for image in images])
    d = np.array([sum(after - before for uri, before, after in pairs if uri == image) for image in images])
    share, count = d.sum() / n.sum(), len(images)
    error = math.sqrt(count / (count - 1) * np.sum((d - share * n) ** 2)) / n.sum()
    half = stats.t.ppf(0.95, count - 1) * error
    rate = compared[0].rates[name]
    assert rate.difference == pytest.approx(share, abs=1e-12)
    assert rate.interval == pytest.approx((share - half, share + half), abs=1e-12)
    assert rate.before == pytest.approx(np.mean([before for _, before, _ in pairs]), abs=1e-12)


def test_with_one_face_an_image_the_interval_is_that_of_a_paired_t_test():
    random = np.random.default_rng(2)
    d = random.integers(-1, 2, 40)
    found = paired_difference_interval(40, 40, int(d.sum()), (40, int(np.sum(d * d)), int(d.sum())), 0.95)
    plain = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert found == pytest.approx((plain.low, plain.high), abs=1e-12)
    assert paired_difference_interval(1, 3, 1, (9, 1, 3), 0.95) is None


def test_the_most_different_faces_come_first(compared, sides):
    pairs = paired(sides[0][0], sides[1][0])

    def difference(pair):
        worn = [np.float64(row["probability_mask"]) + row["probability_incorrect"] for row in pair]
        return (pair[0]["label"] == pair[1]["label"], -abs(worn[0] - worn[1]))

    expected = sorted(pairs, key=difference)[:7]
    found = [(face.row["image_uri"], face.row["face_index"], face.label) for face in compared[1]]
    assert found == [(one["image_uri"], one["face_index"], other["label"]) for one, other in expected]


def test_every_number_on_the_page_is_one_of_the_comparison(compared):
    found, _, html = compared
    numbers = {name: float(value) for name, value in re.findall(r'<data data-of="([^"]+)" value="([^"]+)">', html)}
    assert numbers["agreement"] == found.agreement
    assert numbers["any_mask_rate.difference"] == found.rates["any_mask_rate"].difference
    for (one, other), number in found.labels.items():
        assert numbers[f"labels.{one}.{other}"] == number
    for (one, other), number in found.outcomes.items():
        assert numbers[f"outcomes.{one}.{other}"] == number
    assert "<script" not in html


def test_the_command_writes_the_page_and_says_the_same(outputs, tmp_path, capsys):
    page = tmp_path / "compared.html"
    assert main(["compare-runs", *outputs, "--output", str(page), "--faces", "4", "--confidence", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "only in the old" in said
    assert f"{page}" in said
    assert "gone since it was scored" in page.read_text()  # drawn rows have no photographs


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--faces", "3"], "a page to show them on"),
        (["--confidence", "1.5"], "between 0 and 1"),
        (["--output", "x.html", "--faces", "1000"], "1 to 120"),
    ],
)
def test_mistakes_are_named(outputs, flags, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["compare-runs", *outputs, *flags]) == 2
    assert message in capsys.readouterr().err


def test_outputs_of_other_photographs_are_refused(outputs, sides, tmp_path, capsys):
    faces = [{**row, "image_uri": f"/elsewhere{row['image_uri']}"} for row in sides[0][0]]
    write_drawn(tmp_path / "other", (faces, [], []), KEYS)
    assert main(["compare-runs", outputs[0], str(tmp_path / "other")]) == 2
    assert "over the same photographs" in capsys.readouterr().err
