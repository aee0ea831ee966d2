"""Weights in other files: told from the bytes of a model, wherever the tensor stands and however it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ima_yolo.errors import IMAError
from ima_yolo.export import Detector
from ima_yolo.export.external import check_alone, keeps_data_elsewhere


def tensor(is_external: bool) -> TensorProto:
    if not is_external:
        return numpy_helper.from_array(np.ones(3, np.float32), "location")
    made = TensorProto(name="w", data_type=1, dims=[3], data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value="secret.bin")
    return made


def graph(nodes: list, initializers: list = (), sparse: list = ()) -> onnx.GraphProto:
    ends = [helper.make_tensor_value_info("location", 1, [3])]
    return helper.make_graph(nodes, "g", ends, ends, list(initializers), sparse_initializer=list(sparse))


def sparse(value: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=value, indices=numpy_helper.from_array(np.arange(3)), dims=[3])


PLACES = {
    "initializer": lambda t: graph([], [t]),
    "sparse initializer": lambda t: graph([], [], [sparse(t)]),
    "constant": lambda t: graph([helper.make_node("Constant", [], ["a"], value=t)]),
    "list of tensors": lambda t: graph([helper.make_node("Own", [], ["a"], values=[t])]),
    "sparse constant": lambda t: graph([helper.make_node("Constant", [], ["a"], sparse_value=sparse(t))]),
    "branch": lambda t: graph([helper.make_node("If", ["location"], ["a"], then_branch=graph([], [t]))]),
    "branch of a branch": lambda t: graph(
        [helper.make_node("If", ["x"], ["a"], b=graph([helper.make_node("If", ["x"], ["a"], b=graph([], [t]))]))]
    ),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("is_external", [True, False])
def test_a_tensor_is_found_wherever_it_stands(place: str, is_external: bool) -> None:
    content = helper.make_model(PLACES[place](tensor(is_external))).SerializeToString()
    assert b"location" in content, "or nothing was walked through"
    assert keeps_data_elsewhere(content) is is_external


def test_a_function_and_a_training_are_walked_through() -> None:
    node = helper.make_node("Constant", [], ["a"], value=tensor(True))
    model = helper.make_model(graph([]))
    model.functions.append(helper.make_function("d", "f", [], ["a"], [node], []))
    assert keeps_data_elsewhere(model.SerializeToString())
    model = helper.make_model(graph([]))
    model.training_info.add().algorithm.CopyFrom(graph([], [tensor(True)]))
    assert keeps_data_elsewhere(model.SerializeToString())


def test_numbers_may_be_written_longer_than_they_need() -> None:
    """A reader of the format takes them; a search for the usual bytes would not find them."""
    entry = b"\x0a\x88\x00location\x12\x01x"
    one = b"\x6a" + bytes([len(entry)]) + entry
    model = b"\x3a\x80\x01" + b"\x2a\x7d" + one + b"\x42" + bytes([0x7D - len(one) - 2]) + bytes(0x7D - len(one) - 2)
    assert len(model) == 3 + 0x7F
    assert keeps_data_elsewhere(b"\x3a\xff\x00" + model[3:])


@pytest.mark.parametrize(
    "content", [b"\x3a\x7flocation", b"\xff" * 12 + b"location", b"\x3b location", b"\x3e location"]
)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(IMAError, match=r"^model=x: not a loadable ONNX file \("):
        check_alone(content, "x")


def test_kinds_of_attributes_are_those_of_onnx() -> None:
    """A kind that a later ONNX adds could hold a tensor unseen."""
    known = {"f", "i", "s", "t", "g", "tp", "floats", "ints", "strings", "tensors", "graphs", "type_protos"}
    known |= {"sparse_tensor", "sparse_tensors", "name", "ref_attr_name", "doc_string", "type"}
    assert {field.name for field in AttributeProto.DESCRIPTOR.fields} == known


def test_a_tag_with_bits_that_readers_drop_is_refused() -> None:
    """External data to ONNX Runtime, an unknown field to whoever keeps all bits."""
    entry = b"\x0a\x08location\x12\x01x"
    tag = (1 << 32) | (13 << 3 | 2)
    long = bytes([tag & 127 | 128, tag >> 7 & 127 | 128, tag >> 14 & 127 | 128, tag >> 21 & 127 | 128, tag >> 28])
    tensor = long + bytes([len(entry)]) + entry
    model = b"\x2a" + bytes([len(tensor)]) + tensor
    with pytest.raises(IMAError, match="not a loadable ONNX file"):
        check_alone(b"\x3a" + bytes([len(model)]) + model, "x")


def test_the_format_of_onnx_runtime_is_refused(toy: Callable[..., Path], tmp_path: Path) -> None:
    options, other = ort.SessionOptions(), tmp_path / "other.onnx"
    options.optimized_model_filepath = str(other)
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(toy(np.zeros((1, 6, 2)))), options, providers=["CPUExecutionProvider"])
    assert ort.InferenceSession(other.read_bytes(), providers=["CPUExecutionProvider"]).get_inputs(), (
        "or it proves nothing"
    )
    with pytest.raises(
        IMAError, match=r"^model=.*other\.onnx: in ONNX Runtime's own format \(\.ort\); give the \.onnx"
    ):
        Detector(other)
