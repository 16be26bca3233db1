import io

import numpy as np
import pytest
from PIL import Image

from maskdet.labels import THREE_CLASSES
from tools.incorrect import pipeline
from tools.incorrect.fitting import (
    BATCH,
    FROZEN_UP_TO,
    LAST_LAYERS_FROM,
    Mixture,
    Part,
    cut,
    fit,
    put_back,
    with_three_classes,
)
from tools.incorrect.sources import Item
from tools.incorrect.views import SIDE_PX, make_view


def part(label, value, weight, items=10):
    views = np.full((items, 2, 4, 4, 3), value, np.uint8)
    return Part(views, np.full(items, label), np.full(items, weight))


def test_a_mixture_draws_by_weight():
    mixture = Mixture([part(0, 10, 3.0), part(2, 20, 1.0)], 1, mirror=False)
    assert mixture.shares() == pytest.approx({"mask": 0.75, "incorrect": 0, "no_mask": 0.25})
    labels = np.concatenate([labels for _, labels in mixture.batches(40)])
    assert len(labels) == 40 * BATCH
    assert np.mean(labels == 0) == pytest.approx(0.75, abs=0.03)


def test_views_come_with_their_labels_and_equal_seeds_draw_alike():
    def drawn(seed):
        return list(Mixture([part(0, 10, 1.0), part(1, 20, 1.0)], seed, mirror=True).batches(3))

    for views, labels in drawn(3):
        assert views.dtype == np.float32
        assert np.array_equal(views[:, 0, 0, 0], np.where(labels == 0, 10, 20))
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(drawn(3), drawn(3), strict=True))
    assert any(not np.array_equal(one[1], other[1]) for one, other in zip(drawn(3), drawn(4), strict=True))


@pytest.fixture(scope="module")
def shipped():
    from maskdet.model.architectures import build_model

    network = build_model("compact", SIDE_PX, SIDE_PX)
    kernel, bias = network.get_layer("logit").get_weights()
    network.get_layer("logit").set_weights([kernel * 20, bias + 0.3])
    return network


@pytest.mark.xdist_group("models")
def test_three_classes_begin_with_what_two_know(shipped):
    network = with_three_classes(shipped)
    views = np.random.default_rng(0).integers(0, 256, (6, SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    two, three = shipped.predict(views, verbose=0)[:, 0], network.predict(views, verbose=0)
    assert three.shape == (6, len(THREE_CLASSES))
    log_odds = np.log(two / (1 - two))
    assert np.log(three[:, 0] / three[:, 2]) == pytest.approx(log_odds + 1.4, abs=1e-3)
    assert three[:, 1].max() < 0.5


@pytest.mark.xdist_group("models")
@pytest.mark.parametrize("layer", [FROZEN_UP_TO, LAST_LAYERS_FROM])
def test_a_network_cut_in_two_is_the_same_network(shipped, layer):
    network = with_three_classes(shipped)
    first, rest = cut(network, layer)
    views = np.random.default_rng(1).integers(0, 256, (3, SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    expected = network.predict(views, verbose=0)
    assert rest.predict(first.predict(views, verbose=0), verbose=0) == pytest.approx(expected, abs=1e-6)
    for layer in rest.layers:
        layer.set_weights([0 * weights for weights in layer.get_weights()])
    assert put_back(network, rest).predict(views, verbose=0) == pytest.approx(np.full((3, 3), 1 / 3))


@pytest.mark.xdist_group("models")
def test_a_fit_learns(monkeypatch):
    import keras

    monkeypatch.setattr("tools.incorrect.fitting._WARM_UP_STEPS", 5)
    keras.utils.set_random_seed(1)
    pixels = keras.Input((4, 4, 3))
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    network = keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(scaled)))
    mixture = Mixture([part(0, 10, 1.0), part(1, 120, 1.0), part(2, 250, 1.0)], 1, mirror=False)
    fitted = fit(network, mixture, 250, 0.05, averaged=0.9)
    views = np.stack([np.full((4, 4, 3), value, np.float32) for value in (10, 120, 250)])
    assert fitted.predict(views, verbose=0).argmax(axis=1).tolist() == [0, 1, 2]
    assert not np.allclose(fitted.get_weights()[0], network.get_weights()[0])


def item(box, kind="worn_nose", size=90):
    picture = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return Item(file.getvalue(), box, "incorrect", kind, "g", "p")


@pytest.mark.parametrize("box", [None, np.array([20.0, 20.0, 70.0, 80.0])])
def test_views_are_of_one_size_and_follow_from_their_seed(box):
    one, again, other = (make_view(item(box), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == (SIDE_PX, SIDE_PX, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


class Saying:
    """A network that finds no mask in the first view of every second item."""

    def predict(self, views, **_):
        given = np.tile(np.array([[0.1, 0.8, 0.1]]), (len(views), 1))
        given[::4] = 0.1, 0.1, 0.8
        return given


def test_pictures_that_show_no_mask_are_left_out():
    views = np.zeros((4, 2, 4, 4, 3), np.uint8)
    seen = pipeline.without_bare_looks(Saying(), Part(views, np.array([1, 1, 2, 1]), np.ones(4)))
    assert seen.weights.tolist() == [0, 1, 1, 1]  # the third is of a bare face, and says so


def test_real_faces_that_a_network_is_not_sure_of_are_drawn_more_often():
    class Unsure:
        def predict(self, views, **_):
            assert len(views) == 5  # the first view of each
            return np.array([[0.8, 0.2, 0.0], [0.9, 0.1, 0.0], [0.0, 0.2, 0.8], [0.02, 0.03, 0.95], [0.0, 0.5, 0.5]])

    part = Part(np.zeros((5, 2, 4, 4, 3), np.uint8), np.array([0, 0, 2, 2, 1]), np.array([1, 1, 1, 1, 2.0]))
    assert pipeline.with_hard_ones_more(Unsure(), part).weights.tolist() == [3, 1, 3, 1, 2]
    assert pipeline.with_hard_ones_more(Unsure(), part, masked=False).weights.tolist() == [1, 1, 3, 1, 2]
    collections, scenes, worn, hidden, composites = pipeline.for_last_stage(Unsure(), [part] * 5)
    assert collections.weights == pytest.approx([0.75, 0.75, 2.25, 0.75, 1.5])
    assert scenes.weights == pytest.approx([3.6, 1.2, 3.6, 1.2, 2.4])
    assert [rest.weights[0] for rest in (worn, hidden, composites)] == [0.6, 0.6, 0.5]


def test_real_masks_worn_incorrectly_are_drawn_most_often():
    def views(items, copies):
        return np.zeros((len(items), copies, 4, 4, 3), np.uint8)

    near = [item(None, "scene_found")._replace(label=label) for label in ("incorrect", "mask")]
    worn, others, far = pipeline.real_parts(near, [item(None, "scene_found")], views)
    assert [part.labels.tolist() for part in (worn, others)] == [[1], [0]]
    assert worn.weights[0] > 5 * others.weights[0] > 5 * far.weights[0]
    assert worn.views.shape[1] > others.views.shape[1]


def test_weights_go_by_kind_and_rare_ones_of_collections_count_more():
    kinds = {"crop": "mask", "wild": "incorrect", "scene_found": "no_mask", "worn_chin_restored": "incorrect"}
    items = [item(None, kind)._replace(label=label) for kind, label in kinds.items()]
    made = pipeline.parts_of(items, np.zeros((4, 1, 4, 4, 3), np.uint8))
    assert made.labels.tolist() == [0, 1, 2, 1]
    assert made.weights == pytest.approx([1, 4.8, 2, 0.6])  # wild 1.6, three times
