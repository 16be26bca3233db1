import numpy as np
import pytest

from maskdet.model.architectures import build_model
from maskdet.training.operating_point import predict_views, set_operating_point
from maskdet.training.recipe import OperatingPoint
from maskdet.training.sets import load_plain, load_training, load_views

pytestmark = [
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

NEW = {"mask": "new/with", "no_mask": "new/without"}


class Scripted:
    """A network that answers by the tint of the lower half, with given log odds."""

    def __init__(self, odds):
        self.layer = self
        self.weights = [np.array([[1.0]]), np.array([0.0])]
        self._odds = odds

    def get_layer(self, name):
        assert name == "logit"
        return self

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def predict(self, pixels, batch_size, verbose):
        blue = pixels[:, 16:, :, 2].mean(axis=(1, 2)) > 250
        rows = np.arange(len(pixels))
        logits = np.where(blue, 1.0, -1.0) * self._odds[rows % len(self._odds)]
        logits = logits * self.weights[0][0, 0] + self.weights[1][0]
        return (1 / (1 + np.exp(-logits)))[:, np.newaxis].astype(np.float32)


def test_temperature_goes_into_the_graph(recipe, root):
    # Nine of ten are right, with log odds of 4, which would be justified if 98 of 100 were.
    settings = recipe(
        operating_point={
            "threshold_data": [NEW],
            "threshold_description": "new ones",
            "calibrate": True,
            "leave_out_near_duplicates": False,
        }
    )
    model = Scripted(np.array([4.0] * 9 + [-4.0]))
    point = set_operating_point(model, settings, load_training(settings, str(root)), str(root))
    # 48 images, of which rows 9, 19, 29 and 39 are wrong.
    right = 4.0 / np.log(44 / 4)
    assert point.calibration.method == "temperature"
    assert point.calibration.temperature == pytest.approx(right, rel=0.02)
    assert point.calibration.fitted_on == "new ones"
    assert model.weights[0][0, 0] == pytest.approx(1 / point.calibration.temperature)
    assert point.characteristics is None


def test_a_band_is_left_undecided_where_errors_would_be_too_many(recipe, root):
    data = {"threshold_data": [NEW], "test_data": [NEW], "leave_out_near_duplicates": False}
    odds = np.array([4.0] * 9 + [-1.0])
    for max_error, banded in ((0.02, True), (0.2, False), (None, False)):
        settings = recipe(operating_point=data | {"max_error": max_error})
        training = load_training(settings, str(root))
        point = set_operating_point(Scripted(odds), settings, training, str(root))
        below, above = point.decision.no_mask_below, point.decision.mask_from
        assert (below < above) is banded
        if banded:  # the wrong ones lie at 1 / (1 + e) and its mirror image
            assert below < 1 / (1 + np.e) < np.e / (1 + np.e) < above
            wrong = point.characteristics.masked_total - point.characteristics.masked_right
            assert 0 < wrong < 5  # uncertain ones


def test_views_for_the_threshold_are_those_of_training(recipe, root):
    settings = recipe(augmentation={"copies": 3}, operating_point=OperatingPoint(on_views=True).model_dump())
    views = load_views(settings, settings.data, str(root))
    plain = load_plain(settings, settings.data, str(root))
    assert views.pixels.shape == (48, 3, 32, 32, 3)
    assert plain.pixels.shape == (48, 1, 32, 32, 3)
    assert not np.array_equal(views.pixels, load_training(settings, str(root)).pixels)  # drawn apart from training's
    assert load_views(settings, [], str(root)) is None


def test_predictions_keep_images_and_views_apart(recipe, root):
    settings = recipe(augmentation={"copies": 2})
    views = load_views(settings, settings.data, str(root))
    model = build_model("compact", 32, 32)
    found = predict_views(model, views)
    assert found.shape == (48, 2, 1)
    one = float(model(views.pixels[7, 1][np.newaxis], training=False)[0, 0])
    assert found[7, 1, 0] == pytest.approx(one, abs=1e-6)
