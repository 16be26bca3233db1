import subprocess
import sys

import numpy as np
import pytest

from maskdet.errors import ConfigError
from maskdet.model.architectures import ARCHITECTURES, build_model

pytestmark = pytest.mark.xdist_group("models")


def test_importing_needs_no_tensorflow():
    code = (
        "import sys, maskdet.model.architectures, maskdet.model.export, maskdet.training.fit, maskdet.training.data\n"
        "sys.exit(int(bool({'tensorflow', 'keras', 'ai_edge_litert'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reference_cnn_has_the_stated_layers():
    # 128 -> 126 -> 63 -> 61 -> 30 -> 28 -> 14 -> 12 -> 6: 'valid' 3x3 convolutions, each halved.
    convolutions = (9 * 3 + 1) * 32 + (9 * 32 + 1) * 64 + (9 * 64 + 1) * 128 + (9 * 128 + 1) * 128
    dense = (6 * 6 * 128 + 1) * 512 + (512 + 1) * 1
    model = build_model("reference_cnn", 128, 128)
    assert model.count_params() == convolutions + dense == 2_601_153
    assert model.input_shape == (None, 128, 128, 3)
    assert model.output_shape == (None, 1)


def test_dropout_stands_before_the_dense_units_and_adds_no_parameters():
    model = build_model("reference_cnn_dropout", 128, 128)
    assert model.count_params() == 2_601_153
    kinds = [type(layer).__name__ for layer in model.layers]
    dropout = kinds.index("Dropout")
    assert kinds[dropout - 1 : dropout + 2] == ["Flatten", "Dropout", "Dense"]
    assert model.layers[dropout].rate == 0.5


def test_vgg19_has_the_stated_layers():
    # Blocks of 2, 2, 4, 4, 4 'same' 3x3 convolutions, each block halved: 128 -> 4.
    channels = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
    sides = [128] * 2 + [64] * 2 + [32] * 4 + [16] * 4 + [8] * 4
    convolutions = list(zip(channels[:-1], channels[1:], sides, strict=True))
    base = sum((9 * before + 1) * after for before, after, _ in convolutions)
    head = (4 * 4 * 512 + 1) * 256 + 256 + 1
    model = build_model("reference_vgg19", 128, 128)
    assert base == 20_024_384
    assert model.count_params() == base + head == 22_122_049
    multiply_adds = sum(9 * before * after * side**2 for before, after, side in convolutions) + 4 * 4 * 512 * 256 + 256
    assert 6.3e9 < multiply_adds < 6.5e9
    assert model.get_layer("block5_pool").output.shape == (None, 4, 4, 512)


def test_compact_stays_small_at_its_size():
    # (kernel, stride, expansion, channels) of the first seven blocks; then 256 channels and one unit.
    blocks = [(3, 1, 1, 16), (3, 2, 6, 24), (3, 1, 6, 24), (5, 2, 6, 40), (5, 1, 6, 40), (3, 2, 6, 80), (3, 1, 6, 80)]
    parameters, multiply_adds, side = count_blocks(blocks, 112)
    parameters += 80 * 256 + 4 * 256 + 257
    multiply_adds += 80 * 256 * side**2 + 256
    model = build_model("compact", 112, 112)
    assert model.count_params() == parameters
    assert multiply_adds <= 40e6
    assert model.get_layer("block6_add").output.shape == (None, 7, 7, 80) == (None, side, side, 80)


def count_blocks(blocks, side):
    """Parameters and multiply-adds of the stem and inverted residual blocks, and the side of their output."""
    side //= 2
    channels, parameters, multiply_adds = 32, 3 * 9 * 32 + 4 * 32, 3 * 9 * 32 * side**2
    for kernel, stride, expansion, filters in blocks:
        wide = channels * expansion
        if expansion > 1:
            parameters += channels * wide + 4 * wide
            multiply_adds += channels * wide * side**2
        side //= stride
        parameters += kernel**2 * wide + 4 * wide + wide * filters + 4 * filters
        multiply_adds += (kernel**2 * wide + wide * filters) * side**2
        channels = filters
    return parameters, multiply_adds, side


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_pixels_are_scaled_inside_the_graph(name):
    import keras

    side = ARCHITECTURES[name].min_side_px
    model = build_model(name, side, side)
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    after_scaling = keras.Model(model.get_layer("rescaling").output, model.output)
    expected = after_scaling(pixels.astype(np.float32) / np.float32(255.0)).numpy()
    np.testing.assert_allclose(model(pixels).numpy(), expected, atol=1e-6)
    assert expected.dtype == np.float32
    assert expected.shape == (2, 1)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_smallest_input_builds_and_smaller_is_refused(name):
    side = ARCHITECTURES[name].min_side_px
    assert build_model(name, side, side).input_shape == (None, side, side, 3)
    with pytest.raises(ConfigError, match=rf"at least {side} pixels a side, received \({side}, {side - 1}\)"):
        build_model(name, side, side - 1)


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        ConfigError,
        match=r"expected one of compact, efficientnet_lite0, reference_cnn, .*, received 'vgg'",
    ):
        build_model("vgg", 128, 128)


def test_efficientnet_lite0_has_the_published_size():
    # Blocks of (kernel, stride, expansion, channels), as the paper's table and the Lite variant have them.
    blocks = [(3, 1, 1, 16), *[(3, 2, 6, 24), (3, 1, 6, 24)], *[(5, 2, 6, 40), (5, 1, 6, 40)]]
    blocks += [(3, 2, 6, 80), *[(3, 1, 6, 80)] * 2, *[(5, 1, 6, 112)] * 3, (5, 2, 6, 192), *[(5, 1, 6, 192)] * 3]
    blocks += [(3, 1, 6, 320)]
    parameters, multiply_adds, side = count_blocks(blocks, 224)
    parameters += 320 * 1280 + 4 * 1280
    multiply_adds += 320 * 1280 * side**2
    model = build_model("efficientnet_lite0", 224, 224)
    assert model.count_params() == parameters + 1281
    assert 380e6 < multiply_adds < 410e6  # 407 million with the top, by the publication
    assert model.get_layer("features").output.shape == (None, 1280)
    assert sum(type(layer).__name__ == "Add" for layer in model.layers) == 9
