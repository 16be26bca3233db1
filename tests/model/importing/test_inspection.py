"""Files that would run code, open other files, or grow without bounds are refused without loading; others are read."""

import hashlib
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from maskdet.errors import ModelError
from maskdet.model.importing import keras_file
from maskdet.model.importing.bundling import opened_source
from maskdet.model.importing.inspection import external_files_task, inspect, kind_of, look_at
from maskdet.model.importing.networks import model_errors


def layer(name, module="keras.layers", **config):
    return {"module": module, "class_name": name, "config": {"name": name.lower(), **config}, "registered_name": None}


def network(*layers, **more):
    first = layer("InputLayer", batch_shape=[None, 48, 64, 3])
    last = layer("Dense", units=1, activation="sigmoid")
    config = {"name": "net", "layers": [first, *layers, last]}
    return {"module": "keras", "class_name": "Sequential", "config": config, **more}


def write_weights(file, **arrays):
    with h5py.File(file, "w") as content:
        for name, values in arrays.items():
            content[f"layers/{name}/vars/0"] = values


def keras_zip(path, config=None, entries=None, **weights):
    write_weights(path.with_suffix(".tmp"), **(weights or {"dense": np.zeros((4, 1), np.float32)}))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config or network()))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.9.0"}))
        archive.write(path.with_suffix(".tmp"), "model.weights.h5")
        for name, data in (entries or {}).items():
            archive.writestr(name, data)
    return path


def keras_h5(path, config=None, **arrays):
    with h5py.File(path, "w") as content:
        if config is not None:
            content.attrs["model_config"] = json.dumps(config)
        for name, values in arrays.items():
            content[name] = values
    return path


def test_a_keras_file_tells_size_outputs_and_their_curve(tmp_path):
    facts = inspect(keras_zip(tmp_path / "model.keras"))  # as the command does: in a process of its own
    assert facts.model_dump() == {
        **{"kind": "keras", "height": 48, "width": 64, "layout": "NHWC"},
        **{"outputs": 1, "activation": "sigmoid", "made_with": "Keras 3.9.0"},
    }


def test_an_older_keras_file_does_too(tmp_path):
    assert look_at(keras_h5(tmp_path / "model.h5", network())).width == 64


def test_a_network_within_a_network_is_looked_into(tmp_path):
    inner = {"class_name": "Functional", "module": "keras.src.models.functional", "config": {"layers": [layer("ReLU")]}}
    assert look_at(keras_zip(tmp_path / "model.keras", network(inner))).outputs == 1
    inner["config"]["layers"].append(layer("Lambda"))
    with pytest.raises(ModelError, match=r"Lambda of the module keras\.layers"):
        look_at(keras_zip(tmp_path / "model.keras", network(inner)))


def test_how_a_network_was_compiled_does_not_matter(tmp_path):
    compiled = {"loss": {"module": "my_losses", "class_name": "Focal", "registered_name": "my>Focal"}}
    assert look_at(keras_zip(tmp_path / "model.keras", network(compile_config=compiled))).kind == "keras"


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}), "Lambda"),
        (layer("TFSMLayer", filepath="/tmp/other"), "TFSMLayer"),
        (layer("StringLookup", vocabulary="/etc/passwd"), "StringLookup"),
        (layer("Dense", module="os.path"), "Dense of the module os.path"),
        (layer("Dense", module="keras.layers.evil"), "Dense of the module keras.layers.evil"),
        (layer("Dense", module="keras.src.utils.file_utils"), "keras.src.utils.file_utils"),
        ({**layer("Dense"), "registered_name": "my_package>Dense"}, "custom object my_package>Dense"),
        (layer("Dense", activation={"module": "os", "class_name": "function", "config": "system"}), "function system"),
        (layer("Dense", kernel_initializer={"module": "subprocess", "config": "Popen"}), "module subprocess"),
        (layer("Map", module="keras.src.ops.core"), "Map of the module keras.src.ops.core"),
    ],
)
def test_what_could_run_as_code_is_refused_in_either_format(part, found, tmp_path):
    for file in (keras_zip(tmp_path / "model.keras", network(part)), keras_h5(tmp_path / "model.h5", network(part))):
        with pytest.raises(ModelError, match="standard layers") as caught:
            look_at(file)
        assert found in str(caught.value)
        assert caught.value.exit_code == 4


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/cron.d/evil", "assets/vocabulary.txt", "evil\\..\\x"])
def test_entries_beyond_the_three_are_refused(name, tmp_path):
    with pytest.raises(ModelError, match="the entry"):
        look_at(keras_zip(tmp_path / "model.keras", entries={name: "x"}))


def test_an_entry_that_is_there_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = keras_zip(tmp_path / "model.keras", entries={"config.json": "{}"})
    with pytest.raises(ModelError, match="4 entries, 3 names"):
        look_at(file)


def test_a_link_in_the_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("metadata.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match=r"metadata\.json"):
        look_at(tmp_path / "model.keras")


def test_a_zip_that_unpacks_to_far_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("config.json", b" " * (17 * 1024**2))
    with pytest.raises(ModelError, match="that unpack to 17,825,792"):
        look_at(tmp_path / "model.keras")


def test_arrays_that_unpack_to_far_more_are_refused(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as content:
        content.create_dataset("kernel", (1 << 31,), np.float32, chunks=(1 << 20,), compression="gzip")
    with pytest.raises(ModelError, match="that unpack to 8,589,934,592"):
        look_at(tmp_path / "model.h5")


def test_more_weights_than_fit_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(keras_file, "MOST_BYTES", 1000)
    with pytest.raises(ModelError, match="arrays of more than"):
        look_at(keras_h5(tmp_path / "model.h5", network(), kernel=np.ones(300, np.float32)))


@pytest.mark.parametrize("kind", ["external link", "soft link", "external array", "virtual array"])
def test_weights_in_other_files_are_refused(kind, tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as content:
        if kind == "external link":
            content["kernel"] = h5py.ExternalLink("/etc/other.h5", "/x")
        elif kind == "soft link":
            content["kernel"] = h5py.SoftLink("/elsewhere")
        elif kind == "external array":
            content.create_dataset("kernel", (4,), "u1", external=[("/etc/passwd", 0, 4)])
        else:
            layout = h5py.VirtualLayout((4,), "u1")
            layout[:] = h5py.VirtualSource("/etc/other.h5", "x", (4,))
            content.create_virtual_dataset("kernel", layout)
    with pytest.raises(ModelError, match="/kernel, "):
        look_at(tmp_path / "model.h5")


def test_weights_without_layers_are_refused_with_what_to_call(tmp_path):
    with pytest.raises(ModelError, match=r"model\.save\('model\.keras'\)"):
        look_at(keras_h5(tmp_path / "model.h5", kernel=np.ones(3)))


@pytest.mark.parametrize(
    ("write", "name", "kind"),
    [
        (keras_h5, "model.keras", "h5"),
        (keras_h5, "model.hdf5", "h5"),
        (keras_h5, "model.H5", "h5"),
        (keras_zip, "model.h5", "keras"),
        (keras_zip, "model", "keras"),
    ],
)
def test_a_keras_file_is_told_by_its_content_and_its_copy_named_after_it(write, name, kind, tmp_path):
    """Keras goes by the ending: it takes an HDF5 file for a zip, or the other way round."""
    write(tmp_path / name, network(), dense=np.zeros((4, 1), np.float32))
    with opened_source(str(tmp_path / name)) as source:
        assert (source.name, source.facts.kind, source.facts.outputs) == (name, kind, 1)
        assert source.file.name == f"model.{kind}"
        assert source.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_the_folder_of_the_copy_is_not_in_messages(tmp_path):
    copy = tmp_path / "private" / "model.keras"
    with pytest.raises(ModelError, match=r"received 'ValueError: cannot read model\.keras'"), model_errors("one", copy):
        raise ValueError(f"cannot read {copy}")


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "model.pth", "weights.npy", "model.joblib"])
def test_pickles_are_refused_by_name(name, tmp_path):
    (tmp_path / name).write_bytes(b"whatever")
    with pytest.raises(ModelError, match="runs the code in it"):
        kind_of(tmp_path / name)


def test_pickles_are_refused_by_content(tmp_path):
    (tmp_path / "model.onnx").write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:  # as torch.save writes
        archive.writestr("archive/data.pkl", b"x")
    for name in ("model.onnx", "model.keras"):
        with pytest.raises(ModelError, match="runs the code in it"):
            kind_of(tmp_path / name)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.onnx", "model.tflite"])
@pytest.mark.parametrize(
    "content", [b"", b"text, and no model at all", b"PK\x03\x04" + b"\0" * 50, b"\x89HDF" + b"\0" * 50]
)
def test_files_of_other_content_are_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError):
        inspect_here(tmp_path / name)


def inspect_here(file):
    return look_at(file)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def message(*parts):
    """A protocol buffer of (field number, value): whole numbers, texts, bytes."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value & (1 << 64) - 1)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def info(*sizes):
    return message((1, "x:0"), (2, 1), (3, message(*((2, message((1, size))) for size in sizes))))


def node(operation, calls=None):
    attribute = [] if calls is None else [(5, message((1, "f"), (2, message((10, message((1, calls)))))))]
    return message((1, operation.lower()), (2, operation), *attribute)


def function(name, *nodes):
    return message((1, message((1, name))), *((3, one) for one in nodes))


def saved_model(folder, nodes=(), functions=(), objects=None, shape=(-1, 32, 40, 3), again=()):
    library = message(*((1, one) for one in functions))
    graph = message(*((1, one) for one in nodes), (2, library))
    signature = message((1, message((1, "images"), (2, info(*shape)))), (2, message((1, "output_0"), (2, info(-1, 2)))))
    known = message((1, message((6, message((1, "score")))))) if objects is None else objects
    meta = message(
        (1, message((5, "2.21.0"))),
        (2, graph),
        (5, message((1, "serving_default"), (2, signature))),
        (7, known),
        *again,
    )
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(message((1, 1), (2, meta)))
    return folder


class TestSavedModel:
    def test_a_plain_one_is_read(self, tmp_path):
        facts = look_at(saved_model(tmp_path, [node("Placeholder")], [function("score", node("Conv2D"))]))
        assert (facts.height, facts.width, facts.outputs, facts.made_with) == (32, 40, 2, "TensorFlow 2.21.0")

    @pytest.mark.parametrize(
        "operation",
        ["PyFunc", "EagerPyFunc", "ReadFile", "WriteFile", "SaveV2", "LoadLibrary", "HashTableV2", "Made_Up"],
    )
    def test_operations_beyond_arithmetic_are_refused_in_functions(self, operation, tmp_path):
        with pytest.raises(ModelError, match=f"the operation {operation} in the function score") as caught:
            look_at(saved_model(tmp_path, functions=[function("score", node("Conv2D"), node(operation))]))
        assert caught.value.exit_code == 4

    def test_they_are_refused_in_the_graph(self, tmp_path):
        with pytest.raises(ModelError, match="WriteFile in the graph"):
            look_at(saved_model(tmp_path, [node("WriteFile")]))

    def test_saving_is_allowed_where_nothing_calls_it(self, tmp_path):
        save = function("traced_save", node("SaveV2"), node("MergeV2Checkpoints"))
        assert look_at(saved_model(tmp_path, [node("StatefulPartitionedCall", "traced_save")], [save])).outputs == 2

    @pytest.mark.parametrize("caller", ["function", "object"])
    def test_saving_is_refused_where_something_could(self, caller, tmp_path):
        save = function("traced_save", node("SaveV2"))
        functions = (
            [save, function("score", node("PartitionedCall", "traced_save"))] if caller == "function" else [save]
        )
        objects = message((1, message((8, message((1, "traced_save")))))) if caller == "object" else None
        with pytest.raises(ModelError, match="SaveV2 in the function traced_save"):
            look_at(saved_model(tmp_path, functions=functions, objects=objects))

    @pytest.mark.parametrize(
        ("objects", "found"),
        [
            (b"", "TensorFlow 1"),
            (message((1, message((10, message((1, "CPU")))))), "table or file"),
            (message((1, message((5, message((1, 0)))))), "table or file"),
            (message((1, message((11, message((1, "x"), (2, message((2, 3)))))))), "restores itself"),
        ],
    )
    def test_what_acts_when_it_is_loaded_is_refused(self, objects, found, tmp_path):
        with pytest.raises(ModelError, match=found):
            look_at(saved_model(tmp_path, objects=objects))

    def test_a_graph_in_two_parts_is_refused(self, tmp_path):
        """TensorFlow merges the parts, but the inspection would see only one of them."""
        hidden = message((1, node("WriteFile")))
        with pytest.raises(ModelError, match="field 2 twice"):
            look_at(saved_model(tmp_path, again=[(2, hidden)]))

    @pytest.mark.parametrize("content", [b"\xff" * 20, message((2, b"\x0a\xff"))])
    def test_damage_is_refused(self, content, tmp_path):
        (tmp_path / "saved_model.pb").write_bytes(content)
        with pytest.raises(ModelError):
            look_at(tmp_path)


class TestOnnx:
    onnx = pytest.importorskip("onnx")

    def write(self, folder, nodes=None, tensors=(), shape=("batch", 3, 32, 40), opset=17, **more):
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        nodes = nodes or [helper.make_node("Softmax", ["x"], ["y"])]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", kinds.FLOAT, list(shape))],
            [helper.make_tensor_value_info("y", kinds.FLOAT, ["batch", 2])],
            list(tensors),
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="pytorch", **more
        )
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        return folder / "model.onnx"

    def external(self, location):
        tensor = self.onnx.numpy_helper.from_array(np.ones(4, np.float32), "w")
        tensor.ClearField("raw_data")
        tensor.data_location = self.onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location
        return tensor

    def test_a_plain_one_is_read(self, tmp_path):
        facts = look_at(self.write(tmp_path))
        assert (facts.layout, facts.height, facts.width, facts.outputs) == ("NCHW", 32, 40, 2)
        assert (facts.activation, facts.made_with) == ("softmax", "pytorch")

    @pytest.mark.parametrize("picture", [b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"<html>"])
    @pytest.mark.parametrize("read", [look_at, lambda file: external_files_task({"file": str(file)})])
    def test_other_content_is_told_in_plain_words(self, picture, read, tmp_path):
        (tmp_path / "model.onnx").write_bytes(picture + b"\xf7" * 40)
        with pytest.raises(ModelError, match=r"expected an ONNX file, received 'a file .*other content") as caught:
            read(tmp_path / "model.onnx")
        assert "kind" not in str(caught.value)

    def test_sizes_left_open_are_none(self, tmp_path):
        facts = look_at(self.write(tmp_path, shape=("batch", 3, "height", "width")))
        assert (facts.layout, facts.height, facts.width) == ("NCHW", None, None)

    def test_custom_operators_are_refused(self, tmp_path):
        nodes = [self.onnx.helper.make_node("Softmax", ["x"], ["y"], domain="com.evil")]
        with pytest.raises(ModelError, match=r"Softmax of the domain com\.evil"):
            look_at(self.write(tmp_path, nodes))

    def test_custom_operators_in_branches_are_refused(self, tmp_path):
        helper = self.onnx.helper
        branch = helper.make_graph([helper.make_node("Run", [], ["z"], domain="com.evil")], "b", [], [])
        nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
        with pytest.raises(ModelError, match=r"Run of the domain com\.evil"):
            look_at(self.write(tmp_path, nodes))

    @pytest.mark.parametrize("location", ["../weights", "/etc/passwd", "deep/weights", "", "..", "c:\\weights"])
    def test_weights_outside_the_folder_are_refused(self, location, tmp_path):
        with pytest.raises(ModelError, match="outside its folder"):
            look_at(self.write(tmp_path, tensors=[self.external(location)]))

    def test_weights_by_a_link_are_refused(self, tmp_path):
        (tmp_path / "weights").symlink_to("/etc/passwd")
        with pytest.raises(ModelError, match="no file in its folder"):
            look_at(self.write(tmp_path, tensors=[self.external("weights")]))

    def test_weights_beside_the_file_are_allowed(self, tmp_path):
        (tmp_path / "weights").write_bytes(bytes(16))
        assert look_at(self.write(tmp_path, tensors=[self.external("weights")])).kind == "onnx"

    def test_functions_of_its_own_are_refused(self, tmp_path):
        helper = self.onnx.helper
        made = helper.make_function("own", "F", ["a"], ["b"], [], [helper.make_opsetid("", 17)])
        with pytest.raises(ModelError, match="functions of its own"):
            look_at(self.write(tmp_path, functions=[made]))

    def test_other_inputs_are_refused(self, tmp_path):
        with pytest.raises(ModelError, match=r"\(batch, height, width, 3\)"):
            look_at(self.write(tmp_path, shape=("batch", 1, 28, 28)))


class TestLiteRT:
    def write(self, folder, code=None, custom=None):
        """The built-in classifier's float file, which is plain, with its first operator's code changed."""
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema

        from maskdet.model.bundle import BUILTIN_FOLDER

        data = bytearray((BUILTIN_FOLDER / "model_float.tflite").read_bytes())
        network = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
        if code is not None:
            network.operatorCodes[0].builtinCode = code
            network.operatorCodes[0].customCode = custom
        builder = flatbuffers.Builder(1024)
        builder.Finish(network.Pack(builder), b"TFL3")
        (folder / "model.tflite").write_bytes(bytes(builder.Output()))
        return folder / "model.tflite"

    def test_a_plain_one_is_read(self, tmp_path):
        facts = look_at(self.write(tmp_path))
        assert (facts.kind, facts.height, facts.width, facts.outputs) == ("litert", 112, 112, 3)

    def test_custom_and_flex_operators_are_refused(self, tmp_path):
        with pytest.raises(ModelError, match="the operator FlexWriteFile"):
            look_at(self.write(tmp_path, 32, b"FlexWriteFile"))
