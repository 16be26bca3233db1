import pytest

from maskdet.training import devices

pytestmark = pytest.mark.xdist_group("tensorflow")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Pretend to be a machine with these processor flags and this GPU."""

    def be(flags, capability=None):
        import tensorflow as tf

        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\nprocessor\t: 1\nflags\t: none\n")
        monkeypatch.setattr(devices, "_CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu"] if capability else [])
        details = {"compute_capability": capability}
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)

    return be


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ("avx512f", None, "float32"),
        ("avx512f avx512_bf16", None, "mixed_bfloat16"),
        ("amx_bf16", None, "mixed_bfloat16"),
        ("amx_bf16", (6, 1), "float32"),
        ("", (7, 5), "mixed_float16"),
        ("", (9, 0), "mixed_bfloat16"),
    ],
)
def test_sixteen_bits_only_where_the_device_has_units_for_them(machine, flags, capability, expected):
    import keras

    machine(flags, capability)
    with devices.precision(mixed=True) as policy:
        assert policy == expected == keras.config.dtype_policy().name
    with devices.precision(mixed=False) as policy:
        assert policy == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_machines_without_a_list_of_flags(tmp_path):
    assert devices.cpu_flags(tmp_path / "absent") == set()


def test_networks_keep_a_float32_end(machine):
    from maskdet.model.architectures import build_model

    machine("avx512_bf16")
    with devices.precision(mixed=True):
        model = build_model("compact", 32, 32)
    assert model.layers[2].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    assert [model.get_layer(name).compute_dtype for name in ("logit", "probability_mask")] == ["float32"] * 2
