"""For a network whose right declaration is known, labelled images refute each wrong one, and name what is wrong."""

import numpy as np
import pytest

from maskdet.labels import codes_of
from maskdet.model.importing.check import Check, Trial, check_reading
from maskdet.model.importing.reading import SCALES, Reading

NAMES = ["mask", "no_mask"] * 40


def images():
    """Masked faces are redder by a tenth of the range, and otherwise alike."""
    rng = np.random.default_rng(3)
    red = np.where(np.array(NAMES) == "mask", 160, 130)[:, None, None] + rng.integers(-8, 9, (80, 6, 6))
    return np.stack([red, rng.integers(30, 50, (80, 6, 6)), rng.integers(30, 50, (80, 6, 6))], axis=-1).astype(np.uint8)


def network(pixels):
    """The probability of no mask: a sigmoid of how little red there is, for pixels from 0 to 1."""
    return 1 / (1 + np.exp(np.clip(300 * (pixels[..., 0].mean(axis=(1, 2)) - 0.57), -80, 80)))[:, None].astype(
        np.float32
    )


def declared(classes=("mask", "no_mask"), scale="1/255", channels=None):
    chosen = SCALES[scale]
    return Reading(
        classes=classes,
        scale=scale,
        factor=chosen.factor,
        offset=chosen.offset,
        channels=channels or chosen.channels,
        activation="sigmoid",
    )


def test_the_right_declaration_stands():
    check = check_reading(network, declared(), images(), codes_of(NAMES))
    assert check.declared.accuracy == 1.0
    assert check.clearly_better is None
    assert len(check.trials) == 12  # six ways to read the input, times two orders of the classes


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"classes": ("no_mask", "mask")}, "--classes mask,no_mask"),
        ({"channels": "BGR"}, "--channels RGB"),
        ({"scale": "none"}, "--scale 1/255"),
        ({"scale": "-1..1"}, "--scale 1/255"),
        ({"scale": "caffe"}, "--scale 1/255 --channels RGB"),
    ],
)
def test_each_wrong_declaration_is_refuted_and_the_right_one_named(wrong, remedy):
    check = check_reading(network, declared(**wrong), images(), codes_of(NAMES))
    assert check.clearly_better is not None
    assert (check.clearly_better.reading, check.clearly_better.accuracy) == (remedy, 1.0)


def test_mcnemar_by_hand():
    """Of ten images, the exchange gets seven right that are wrong as declared, and loses three: that is not clear."""
    names = ["mask"] * 10

    def seven_wrong(pixels):
        return np.float32([[0.9]] * 7 + [[0.1]] * 3)

    check = check_reading(seven_wrong, declared(), np.zeros((10, 4, 4, 3), np.uint8), codes_of(names))
    exchanged = next(trial for trial in check.trials if trial.reading == "--classes no_mask,mask")
    assert (exchanged.better, exchanged.worse) == (7, 3)
    assert exchanged.probability == pytest.approx((120 + 45 + 10 + 1) / 1024)  # P(at least 7 of 10 heads)
    assert check.clearly_better is None


def test_three_classes_in_a_wrong_order_are_refuted():
    names = ["mask", "incorrect", "no_mask"] * 20
    truth = codes_of(names)
    given = np.eye(3, dtype=np.float32)[[("no_mask", "mask", "incorrect").index(name) for name in names]]
    reading = declared(("mask", "incorrect", "no_mask")).model_copy(update={"activation": "softmax"})
    check = check_reading(lambda pixels: given, reading, np.zeros((60, 4, 4, 3), np.uint8), truth)
    assert check.declared.accuracy == 0.0
    assert check.clearly_better.reading.endswith("--classes no_mask,mask,incorrect")


def test_a_network_that_is_far_too_sure_is_told_by_its_loss():
    """Logits multiplied by 255 keep their signs: as many are right, but the wrong ones are wrong with certainty."""
    logits = np.tile([3.0, 2.0, 1.0, 4.0, 2.5, -0.4, 1.5, 3.5, 0.5, 2.0], 20).astype(np.float32)

    def by_scale(pixels):
        return (logits * (255 if pixels.max() > 1 else 1))[:, None]

    white = np.full((200, 2, 2, 3), 255, np.uint8)
    truth = codes_of(["no_mask"] * 200)  # what a high logit means; a tenth are wrong
    reading = declared(scale="none").model_copy(update={"activation": "logits"})
    check = check_reading(by_scale, reading, white, truth)
    assert check.declared.accuracy == 0.9
    assert check.declared.log_loss == pytest.approx(0.1 * -np.log(1e-6))
    better = check.clearly_better
    assert (better.reading, better.better, better.worse) == ("--scale 1/255", 0, 0)
    sure = 1 / (1 + np.exp(-logits[:10].astype(np.float64)))
    assert better.log_loss == pytest.approx(-np.log(sure).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("better", "worse", "loss_probability", "doubtful"),
    [
        (3, 5, 1e-9, True),  # fewer right, as chance may have it
        (0, 20, 1e-9, False),  # clearly fewer right
        (3, 5, 0.2, False),  # the loss may be lower by chance
    ],
)
def test_a_lower_loss_beside_a_few_fewer_right_is_worth_a_look_and_refutes_nothing(
    better, worse, loss_probability, doubtful
):
    first = Trial(reading="as declared", accuracy=0.92, log_loss=1.1, images=400)
    chance = {"better": better, "worse": worse, "probability": 1.0, "loss_probability": loss_probability}
    other = Trial(reading="--scale 1/255", accuracy=0.915, log_loss=0.2, images=400, **chance)
    check = Check(trials=(first, other))
    assert check.clearly_better is None
    assert check.doubtful == (other if doubtful else None)
    if (better, worse) == (3, 5):
        assert other.worse_by_chance == pytest.approx((56 + 28 + 8 + 1) / 256)  # 5, 6, 7 or 8 of 8
