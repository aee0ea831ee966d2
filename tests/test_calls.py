"""No class or function of an attacker's choosing is called while a checkpoint is loaded, however a call is written."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from ultralytics.nn.modules import Detect

from ima_yolo.calls import check_calls
from ima_yolo.errors import IMAError


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


LINEAR, TENSOR = named("torch.nn.modules.linear", "Linear"), named("torch", "Tensor")
CALL = number(3) + number(4) + b"\x86R"
REBUILD = named("torch._tensor", "_rebuild_from_type_v2")
MADE = LINEAR + b")\x81"
TAKEN = named("builtins", "getattr") + LINEAR + text("apply") + b"\x86R"
RUN = named("builtins", "getattr") + LINEAR + text("forward") + b"\x86R"
ORDERED = named("collections", "OrderedDict") + b")R"
PARAMETER = named("torch._utils", "_rebuild_parameter")
DATA = named("torch._utils", "_rebuild_tensor_v2") + b"((X\x01\0\0\0atQK\0K\x01\x85K\x01\x85\x89" + ORDERED + b"tR"
DTYPE = named("numpy", "dtype")
ARRAY = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\0\x85C\x01b\x87R"


def state(name: str, value: bytes) -> bytes:
    return b"}" + text(name) + value + b"s"


def kind(flags: int, parts: bytes = b"N") -> bytes:
    """The state of a NumPy type."""
    return b"(K\x03" + text("|") + parts + b"NN" + number(-1) * 2 + number(flags) + b"t"


OBJECTS = DTYPE + text("O8") + b"\x89\x88\x87R" + kind(63) + b"b"
PICKLES = {
    "a class": LINEAR + CALL,
    "a loss": named("ultralytics.utils.loss", "v8DetectionLoss") + CALL,
    "a name that is parted elsewhere": named("torch", "nn.modules.linear.Linear") + CALL,
    "a model": named("ultralytics", "nn.tasks.DetectionModel") + text("x.yaml") + b"\x85R",
    "a function that calls": REBUILD + b"(" + LINEAR + TENSOR + number(3) + number(4) + b"\x86}tR",
    "one that calls itself": REBUILD + b"(" + REBUILD + TENSOR + b"(" + LINEAR + TENSOR + CALL[:-1] + b"}t}tR",
    "a method": TAKEN + MADE + LINEAR + b"\x86R",
    "a method through another": REBUILD + b"(" + TAKEN + TENSOR + MADE + LINEAR + b"\x86}tR",
    "a partial": named("functools", "partial") + LINEAR + number(3) + b"\x86R",
    "bytes": named("builtins", "bytearray") + number(600_000_000) + b"\x85R",
    "what is no call known here": b"(" + LINEAR + b"i__main__\nx\n",
    "an object's own way of being filled": MADE + state("__setstate__", LINEAR) + b"b" + number(3) + b"b",
    "an object filled twice": MADE + state("a", number(3)) + b"b" + state("b", number(3)) + b"b",
    "attributes of a dictionary": ORDERED + state("get", LINEAR) + b"b",
    "attributes of what was taken": RUN + state("a", LINEAR) + b"b",
    "a tensor of any size": TENSOR + number(75000) + number(75000) + b"\x86\x81",
    "a tensor by a call": TENSOR + number(75000) + number(75000) + b"\x86R",
    "a storage": named("torch", "FloatStorage") + number(75000) + b"\x85R",
    "a storage without a type": named("torch.storage", "UntypedStorage") + number(75000) + b"\x85R",
    "hooks of a parameter": PARAMETER + b"(" + DATA + b"\x88" + ORDERED + text("a") + LINEAR + b"stR",
    "a text of bytes that takes memory": named("builtins", "bytearray") + number(1) + b"\x85R",
    "a NumPy type of addresses": DTYPE + text("O8") + b"\x89\x88\x87R" + kind(0) + b"b",
    "a NumPy type of parts": DTYPE + b"(" + text("f8") + number(3) + b"\x86\x89\x88tR",
    "a NumPy type with parts": DTYPE + text("f8") + b"\x89\x88\x87R" + kind(0, b"K\x01") + b"b",
    "an array of addresses": ARRAY + b"(K\x01)" + DTYPE + text("O8") + b"\x89\x88\x87R\x89B\x08\0\0\0AAAAAAA\0tb",
    "an array that claims more": ARRAY + b"(K\x01" + number(9) + b"\x85" + OBJECTS + b"\x89]tb",
}


def archive(path: Path, *parts: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in parts:
            made.writestr(name, content)
    return path


def stored(content: bytes) -> bytes:
    return b"\x80\x02" + content + b"."


@pytest.mark.parametrize("case", PICKLES)
def test_a_call_is_refused(case: str, tmp_path: Path) -> None:
    rest = (("a/version", b"3\n"), ("a/byteorder", b"little"))
    path = archive(tmp_path / "x.pt", ("a/data.pkl", stored(PICKLES[case])), *rest)
    with pytest.raises(IMAError, match=r"^refused, since (it carries code|what it holds is not built)"):
        check_calls(path)


@pytest.mark.parametrize(
    "names", [("a/DATA.PKL",), ("a/Data.pkl",), ("a/data.pkl", "a/harmless/data.pkl"), ("a/data.pkl", "a/data.pkl")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_pickle_is_the_one_that_pytorch_reads(names: tuple[str, ...], tmp_path: Path) -> None:
    parts = [(name, stored(b"}")) for name in names]
    parts[0] = (names[0], stored(PICKLES["a class"]))
    path = archive(tmp_path / "x.pt", *parts, ("a/version", b"3\n"), ("a/byteorder", b"little"))
    with pytest.raises(IMAError, match="not part of an Ultralytics model: Linear"):
        check_calls(path)


def test_a_file_of_before_2020_is_one_though_an_archive_follows(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    good = tmp_path / "good.pt"
    good.write_bytes(buffer.getvalue())
    check_calls(good)
    heads = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = archive(tmp_path / "tail.zip", ("x", b"")).read_bytes()
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"".join(heads) + stored(PICKLES["a class"]) + tail)
    with pytest.raises(IMAError, match="not part of an Ultralytics model: Linear"):
        check_calls(bad)


def test_what_checkpoints_hold_passes(tmp_path: Path) -> None:
    marked = nn.Parameter(torch.zeros(2))
    marked.note = "an attribute"  # rebuilt by a function that is handed another
    values = {"marked": marked, "order": OrderedDict(a=1), "set": {1}, "size": torch.Size([2]), "type": torch.float16}
    tensors = [torch.zeros(2, dtype=kind) for kind in (torch.bfloat16, torch.float8_e5m2, torch.uint16, torch.int64)]
    values |= {"numbers": [np.float64(0.5), np.int64(3), np.bool_(True), np.zeros(3, np.float32)], "path": Path("a/b")}
    values |= {"bytes": bytearray(b"ab"), "run": Detect.forward, "device": torch.device("cpu"), "act": functional.silu}
    torch.save({**values, "tensors": tensors, "layer": nn.Sequential(nn.Linear(2, 2), nn.SiLU())}, tmp_path / "x.pt")
    check_calls(tmp_path / "x.pt")
