"""What a model file says about its network, as far as that can be seen without running any of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from maskdet.errors import ModelError

Kind = Literal["keras", "h5", "saved_model", "onnx", "litert"]
KINDS: dict[Kind, str] = {
    "keras": "a Keras file (.keras)",
    "h5": "a Keras file of the older format (.h5)",
    "saved_model": "a SavedModel",
    "onnx": "an ONNX file",
    "litert": "a LiteRT file (.tflite)",
}
"""Kind of file → what it is called."""

_COLOURS = 3
LAST_LAYERS: dict[str, Literal["sigmoid", "softmax", "logits"]] = {"sigmoid": "sigmoid", "softmax": "softmax"}
"""Name of an activation → what it turns outputs into."""
_TRUST = "Do not use the file unless you know why it holds this; what it names would run as code."


class Facts(BaseModel):
    """What was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    height: int | None = None
    """``None`` if the file leaves it open, like the next two."""
    width: int | None = None
    layout: Literal["NHWC", "NCHW"] | None = None
    outputs: int | None = None
    activation: Literal["sigmoid", "softmax", "logits"] | None = None
    """What its last layer turns its outputs into."""
    made_with: str = ""
    """The library that wrote the file, with its version."""


def names_in(text: str) -> frozenset[str]:
    """The names in a text, separated by spaces."""
    return frozenset(text.split())


def unsafe(found: str, remedy: str = _TRUST) -> ModelError:
    """The error for a file with something that could run as code, or reach beyond the file."""
    return ModelError("the model file", "a network of standard layers and weights, and nothing else", found, remedy)


def damaged(kind: Kind, problem: str) -> ModelError:
    """The error for a file that is not what its name says."""
    return ModelError("the model file", KINDS[kind], problem, "Save the model again, or copy the file again.")


def input_facts(shape: tuple[int | None, ...]) -> dict[str, object]:
    """Height, width and layout of a network's input, from its shape including the batch.

    Args:
        shape: of the input; what is open is ``None`` or less than 1.

    Raises:
        ModelError: it is not a batch of colour images.
    """
    sizes = [size if size is not None and size > 0 else None for size in shape]
    if len(sizes) == 4 and sizes[3] == _COLOURS:
        return {"height": sizes[1], "width": sizes[2], "layout": "NHWC"}
    if len(sizes) == 4 and sizes[1] == _COLOURS:
        return {"height": sizes[2], "width": sizes[3], "layout": "NCHW"}
    if len(sizes) == 4 and sizes[1] is None and sizes[3] is None:
        return {}
    expected = "an input of (batch, height, width, 3) or (batch, 3, height, width)"
    raise ModelError("the network", expected, list(shape), "Networks of colour images alone can be imported.")


def only(names: list[str], what: str) -> str:
    """The only input or output of a network.

    Raises:
        ModelError: there are several, or none.
    """
    if len(names) != 1:
        remedy = "Save a model of one image input and one output of classes."
        raise ModelError("the network", f"one {what}", ", ".join(names) or "none", remedy)
    return names[0]
