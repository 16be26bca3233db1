import numpy as np
from ai_edge_litert.interpreter import Interpreter

from maskdet.faces.bundle import open_detector
from tools.detector.export import with_small_canvas


def maps(network, canvas):
    interpreter = Interpreter(model_content=network, num_threads=1)
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], (1, *canvas.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], canvas[np.newaxis])
    interpreter.invoke()
    outputs = interpreter.get_signature_runner().get_output_details()
    return {name: interpreter.get_tensor(detail["index"]) for name, detail in outputs.items()}


def test_a_network_made_for_a_smaller_canvas_computes_the_same():
    network = open_detector().network.read_bytes()
    smaller = with_small_canvas(network, 2)
    shapes = [Interpreter(model_content=one).get_input_details()[0]["shape"].tolist() for one in (network, smaller)]
    assert shapes == [[1, 64, 64, 3], [1, 32, 32, 3]]
    canvas = np.random.default_rng(0).integers(0, 256, (96, 160, 3)).astype(np.uint8)
    expected, received = maps(network, canvas), maps(smaller, canvas)
    assert expected["score"].shape == (1, 24, 40, 1)
    for name, values in expected.items():
        np.testing.assert_array_equal(received[name], values)
