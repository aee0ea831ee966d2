"""No class or function of an attacker's choosing is called while a checkpoint is loaded, however a call is written."""

from __future__ import annotations

import io
import pickle
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from ultralytics.nn.modules import Detect

from ima_yolo.errors import IMAError
from ima_yolo.pickles.check import check_cache, check_checkpoint
from ima_yolo.pickles.names import FILLED, LAYERS, filler


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
STATEFUL, HOOKS = named("torch._utils", "_rebuild_parameter_with_state"), "_post_accumulate_grad_hooks"
FLOATS = named("torch", "FloatStorage")
HELD = b"(" + text("storage") + FLOATS + text("0") + text("cpu") + b"K\x01tQ"
SHAPE = b"K\0K\x01\x85K\x01\x85\x89"  # of one number
DATA = named("torch._utils", "_rebuild_tensor_v2") + b"(" + HELD + SHAPE + ORDERED + b"tR"
LATE = named("torch._utils", "_rebuild_tensor_v2") + b"(" + HELD + SHAPE + b"h\x00tR"
DTYPE = named("numpy", "dtype")
ARRAY = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\0\x85C\x01b\x87R"


def state(name: str, value: bytes) -> bytes:
    return b"}" + text(name) + value + b"s"


def kind(flags: int, parts: bytes = b"N") -> bytes:
    """The state of a NumPy type."""
    return b"(K\x03" + text("|") + parts + b"NN" + number(-1) * 2 + number(flags) + b"t"


DEEP = b")" + b"\x85" * 200_000
ENCODE, COPY = named("_codecs", "encode"), named("_codecs", "encode") + b"h\x00" + text("latin1") + b"\x86R"
BYTES, FILL = named("builtins", "bytearray") + b"h\x00\x85R", MADE + b"h\x00b"
MANY = b"}(" + b"".join(text(f"a{i}") + b"N" for i in range(2**10)) + b"u"
HANDED = REBUILD + b"(" + STATEFUL + named("torch.nn.parameter", "Parameter") + b"(" + DATA + b"\x88" + ORDERED
HANDED += b"h\x00t}tR"
AREA = b"}(" + text("head_dim") + text("x") + text("num_heads") + number(2**30) + b"u"
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
    "a class that calls what it holds": named("ultralytics.nn.distill_model", "DistillationModel") + b")\x81",
    "a class that counts to any number": named("torch.nn.modules.rnn", "LSTM")
    + b")\x81"
    + state("a", number(1))
    + b"b",
    "a class that multiplies texts": named("ultralytics.nn.modules.block", "AAttn") + b")\x81" + AREA + b"b",
    "a class whose import installs": named("ultralytics.nn.text_model", "CLIP") + b")\x81",
    "a class of a package": named("clip.model", "CLIP") + b")\x81",
    "a function among the layers": named("ultralytics.nn.modules.conv", "autopad") + b")\x81",
    "a class that is no layer": named("torch.nn.modules.loss", "LinearCrossEntropyOptions") + b")\x81",
    "a key of many parts": b"}" + DEEP + b"K\x01s",
    "keys of many parts": b"}(" + DEEP + b"K\x01u",
    "keys of two numbers": b"}K\x01K\x02\x86K\x01s",
    "a key in an order": ORDERED + DEEP + b"K\x01s",
    "a member of many parts": named("builtins", "set") + b"](" + DEEP + b"e\x85R",
    "a key of many digits": b"}\x8a\x09" + b"\xff" * 8 + b"\x01" + b"K\x01s",
    "a memory with gaps": b"Nr\xff\xff\xff\x7f",
    "copies of a text": text("x" * 2**20) + b"q\x00" + COPY * 40,
    "copies of bytes": ENCODE + text("x" * 2**20) + text("latin1") + b"\x86Rq\x00" + BYTES * 40,
    "copies of attributes": MANY + b"q\x00" + FILL * 5000,
    "a tensor of many sides": named("torch", "Size") + b"(" + b"K\x01" * 65 + b"t\x85R",
    "a path of any parts": named("pathlib", "PosixPath") + b"(" + text("a") * 1001 + b"tR",
    "numbers under a name": b"(" + text("storage") + FLOATS + text("A") + text("cpu") + b"K\x01tQ",
    "numbers elsewhere": b"(" + text("storage") + FLOATS + text("7") + text("cpu") + b"K\x01tQ",
    "numbers of two sizes": HELD + b"(" + text("storage") + FLOATS + text("0") + text("cpu") + b"K\x02tQ",
    "numbers that are a module": b"(" + text("module") + LINEAR + text("a.py") + text("x") + b"K\x01tQ",
    "numbers less than none": b"(" + text("storage") + FLOATS + text("0") + text("cpu") + number(-1) + b"tQ",
    "hooks that come later": ORDERED + b"q\x00" + LATE + b"h\x00" + text("a") + MADE + b"s",
    "a gradient of a parameter": STATEFUL + b"(" + DATA + b"\x88" + ORDERED + state("grad", DATA) + b"tR",
    "hooks of a parameter's gradient": STATEFUL + b"(" + DATA + b"\x88" + ORDERED + state(HOOKS, MADE) + b"tR",
    "names without end": b"".join(named("torch", f"float{i}") + b"0" for i in range(301)),
    "calls without end": ORDERED[:-2] + b"q\x00" + b"h\x00)R0" * 200_001,
    "sets": b"\x8f",
    "copies that are handed on": b"}("
    + b"".join(text(f"a{i}") + b"N" for i in range(2**10))
    + b"uq\x00"
    + HANDED * 6000,
    "layers that are none": MADE + state("_modules", MADE) + b"b",
    "a newer protocol": b"\x8c\x01a",
    "more layers than any model": MADE * 50_001,
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
        check_checkpoint(path)


@pytest.mark.parametrize(
    "names", [("a/DATA.PKL",), ("a/Data.pkl",), ("a/data.pkl", "a/harmless/data.pkl"), ("a/data.pkl", "a/data.pkl")]
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_pickle_is_the_one_that_pytorch_reads(names: tuple[str, ...], tmp_path: Path) -> None:
    parts = [(name, stored(b"}")) for name in names]
    parts[0] = (names[0], stored(PICKLES["a class"]))
    path = archive(tmp_path / "x.pt", *parts, ("a/version", b"3\n"), ("a/byteorder", b"little"))
    with pytest.raises(IMAError, match=r"not part of an Ultralytics model: Linear|parts are not named"):
        check_checkpoint(path)


def test_a_file_of_before_2020_is_one_though_an_archive_follows(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=False)
    good = tmp_path / "good.pt"
    good.write_bytes(buffer.getvalue())
    check_checkpoint(good)
    heads = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    tail = archive(tmp_path / "tail.zip", ("x", b"")).read_bytes()
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"".join(heads) + stored(PICKLES["a class"]) + tail)
    with pytest.raises(IMAError, match="not part of an Ultralytics model: Linear"):
        check_checkpoint(bad)


LEGACY = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]


def legacy(path: Path, content: bytes, keys: list[str], tail: bytes = b"") -> Path:
    path.write_bytes(b"".join(LEGACY) + stored(content) + pickle.dumps(keys, protocol=2) + tail)
    return path


def held(key: str, count: int) -> bytes:
    """Numbers beside the pickle, as files from before 2020 name them."""
    return b"(" + text("storage") + FLOATS + text(key) + text("cpu") + number(count) + b"NtQ"


def test_a_file_of_before_2020_holds_what_it_says(tmp_path: Path) -> None:
    """PyTorch makes room for all that is named, and fills what is listed: the rest would be what was in memory."""
    path = tmp_path / "x.pt"
    check_checkpoint(legacy(path, held("12", 1), ["12"], bytes(12)))
    for content, keys in ((held("12", 1), []), (held("12", 1), ["13"]), (held("12", 2**30), ["12"])):
        with pytest.raises(IMAError, match="not part of an Ultralytics model: what a tensor holds"):
            check_checkpoint(legacy(path, content, keys, bytes(12)))


def named_by_case(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("a/DATA/0", b"1234")


def with_a_comment(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as made:
        made.comment = b"x" * 40


def behind_others(path: Path) -> None:
    """PyTorch finds the parts where they are said to lie, Python where they lie."""
    path.write_bytes(b"PK\x03\x04" + bytes(60) + path.read_bytes())


@pytest.mark.parametrize("change", [named_by_case, with_a_comment, behind_others])
def test_an_archive_is_read_in_one_way(change: Callable[[Path], None], tmp_path: Path) -> None:
    parts = [("a/version", b"3\n"), ("a/byteorder", b"little"), ("a/data/0", b"0000"), ("a/data.pkl", stored(HELD))]
    path = archive(tmp_path / "x.pt", *parts)
    check_checkpoint(path)
    change(path)
    with pytest.raises(IMAError, match=r"^(refused, since its parts|the file is empty, truncated)"):
        check_checkpoint(path)


CACHES = {
    "a module whose import installs": named("ultralytics.nn.text_model", "CLIP"),
    "arrays of objects in each other": b"".join([ARRAY, b"(K\x01)", OBJECTS, b"\x89](", ARRAY, b"(K\x01)", OBJECTS])
    + b"\x89]NatbetbN0",
    "layers": MADE,
    "numbers beside it": HELD,
    "a key of many parts": b"}" + DEEP + b"K\x01s",
    "no array": b"}",
}


@pytest.mark.parametrize("case", CACHES)
def test_a_cache_of_labels_holds_arrays_alone(case: str) -> None:
    with pytest.raises(IMAError, match=r"^refused, since (it carries code|what it holds is not built)"):
        check_cache(io.BytesIO(b"\x80\x04" + CACHES[case] + b"."))


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_cache_that_numpy_wrote_is_taken(protocol: int) -> None:
    label = {"cls": np.zeros((2, 1), np.float32), "shape": (4, 5), "im_file": "é.png", "segments": [], "x": None}
    found = np.array({"labels": [label] * 3, "hash": "x" * 300, "results": (1, 2, 3), "version": "1.0.3"}, object)
    check_cache(io.BytesIO(pickle.dumps(found, protocol)))


def test_a_cache_of_many_images_is_taken() -> None:
    labels = [
        {"im_file": f"{i}.png", "shape": (9, 9), "cls": np.zeros((1, 1), np.float32), "bboxes": np.zeros((1, 4))}
        for i in range(40_000)
    ]
    check_cache(io.BytesIO(pickle.dumps(np.array({"labels": labels}, object), 4)))


@pytest.mark.parametrize("case", PICKLES)
def test_what_is_refused_takes_little_memory(case: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "x.pt", ("a/data.pkl", stored(PICKLES[case])), ("a/version", b"3\n"))
    tracemalloc.start()
    try:
        with pytest.raises(IMAError):
            check_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_every_way_of_being_filled_was_read() -> None:
    """A class that an update of PyTorch or Ultralytics gives a way of its own is refused until somebody read it."""
    homes = [module for name, module in sys.modules.items() if LAYERS.fullmatch(name)]
    kinds = {kind for home in homes for kind in vars(home).values() if isinstance(kind, type)}
    ways = {filler(kind) for kind in kinds if issubclass(kind, nn.Module)}
    assert {way.__name__ for way in ways if way is not None} - FILLED == {"RNNBase"}


def test_a_checkpoint_is_taken_in_a_process_that_compiled(tiny_checkpoint: Callable[..., Path]) -> None:
    """From its first use on, `torch.compile` wraps how every layer is made and filled."""
    text = """
    import sys, torch
    from ima_yolo.host import load_model
    wrapped = torch.nn.Module.__setstate__
    torch.compile(torch.nn.Linear(1, 1), backend="eager")(torch.zeros(1, 1))
    assert torch.nn.Module.__setstate__ is not wrapped
    load_model(sys.argv[1], "teacher")
    """
    command = [sys.executable, "-c", textwrap.dedent(text), str(tiny_checkpoint())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_checkpoints_hold_passes(tmp_path: Path) -> None:
    marked = nn.Parameter(torch.zeros(2))
    marked.note = "an attribute"  # rebuilt by a function that is handed another
    values = {"marked": marked, "order": OrderedDict(a=1), "set": {1}, "size": torch.Size([2]), "type": torch.float16}
    tensors = [torch.zeros(2, dtype=kind) for kind in (torch.bfloat16, torch.float8_e5m2, torch.uint16, torch.int64)]
    values |= {"numbers": [np.float64(0.5), np.int64(3), np.bool_(True)], "path": Path("a/b")}
    values |= {"bytes": bytearray(b"ab"), "run": Detect.forward, "device": torch.device("cpu"), "act": functional.silu}
    torch.save({**values, "tensors": tensors, "layer": nn.Sequential(nn.Linear(2, 2), nn.SiLU())}, tmp_path / "x.pt")
    check_checkpoint(tmp_path / "x.pt")
