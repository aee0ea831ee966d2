"""Hostile files: refused in one line, and nothing in them is run."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules import Conv, Detect, RepConv
from ultralytics.nn.tasks import DetectionModel, WorldModel
from ultralytics.utils import LOGGER, IterableSimpleNamespace

from ima_yolo import IMATrainer, cli
from ima_yolo.architecture import check_architecture
from ima_yolo.checkpoint import pack
from ima_yolo.commands.options import with_recipe
from ima_yolo.config import validate
from ima_yolo.data_set import read_data_set
from ima_yolo.errors import IMAError
from ima_yolo.export.session import open_session
from ima_yolo.host import load_model
from ima_yolo.pickles.content import check_content
from ima_yolo.plain_yaml import read_plain
from ima_yolo.preflight import prepare
from ima_yolo.teachers.module import read_state
from ima_yolo.trust import trusting


class Code:
    """Makes the file `touched` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched").absolute(),))


def rewrite(source: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Copy a checkpoint with something changed."""
    content = torch.load(source, weights_only=False)
    change(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, target)
    return target


def deflated(source: Path, target: Path) -> Path:
    """The same archive with a compressed part: 64 MB of nothing in 64 kB."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part.filename, bytes(2**26) if part.filename.endswith("data/0") else old.read(part))
    return target


def swollen(content: dict[str, Any]) -> None:
    weight = content["model"].model[0].conv.weight
    weight.data = weight.data.flatten()[:1].expand(2**40)


def cyclic(content: dict[str, Any]) -> None:
    content["model"].model[0].conv.add_module("again", content["model"])


def hollow(content: dict[str, Any]) -> None:
    del content["model"]._modules["model"]


def evaluated(content: dict[str, Any]) -> None:
    content["model"].yaml["activation"] = "__import__('pathlib').Path('touched').touch() or nn.SiLU()"


def called(content: dict[str, Any]) -> None:
    content["model"].yaml["head"][0] = [-1, 1, "check_requirements", ["some-package"]]


def hooked(content: dict[str, Any]) -> None:
    """A function that a checkpoint may name: it would install a package."""
    content["model"]._forward_hooks[0] = WorldModel.get_text_pe


def with_a_forward(content: dict[str, Any]) -> None:
    vars(content["model"].model[0])["forward"] = WorldModel.get_text_pe


def shared(content: dict[str, Any]) -> None:
    """A few hundred kB that become 100 MB once they are made single precision."""
    values = torch.zeros(2**17, dtype=torch.half)
    for number in range(200):
        content["model"].register_buffer(f"b{number}", values[:])


def many_buffers(content: dict[str, Any]) -> None:
    """The same tensor, of which every name becomes one of its own in single precision."""
    values = torch.zeros(2**17, dtype=torch.half)
    for number in range(200):
        content["model"].register_buffer(f"b{number}", values)


def branched(content: dict[str, Any]) -> None:
    """Forty modules with a trillion ways through them."""
    inner: nn.Module = nn.Identity()
    for _ in range(40):
        inner = nn.Sequential(inner, inner)
    content["model"].model[0].add_module("deep", inner)


def enlarged(content: dict[str, Any]) -> None:
    next(part for part in content["model"].modules() if isinstance(part, nn.Upsample)).scale_factor = 3000.0


def grown(content: dict[str, Any]) -> None:
    first = content["model"].model[0]
    content["model"].model[0] = nn.Sequential(first, *(nn.Upsample(scale_factor=8.0) for _ in range(4)))
    content["model"].model[0].i, content["model"].model[0].f = first.i, first.f


def nested(make: Callable[[Any, Any], Any]) -> Any:
    """Sixty values in each other, which nobody can print: each is there twice in the next."""
    value = make(0, 0)
    for _ in range(60):
        value = make(value, value)
    return value


def spaces() -> Any:
    return nested(lambda first, second: IterableSimpleNamespace(first=first, second=second))


def layers() -> Any:
    return nested(lambda first, _: nn.Sequential(*[first] * 2) if first else nn.Identity())


def of_large_images(content: dict[str, Any]) -> None:
    content["train_args"] = {**dict(content.get("train_args") or {}), "imgsz": 40000}


class Call:
    """Calls a class while it is unpickled."""

    def __init__(self, kind: Any, *args: Any) -> None:
        self.call = kind, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def quantized(mode: str = "quantize", config: dict[str, Any] | None = None, shape: tuple[int, ...] = ()) -> Any:
    """A change that adds a quantization as Ultralytics writes it, or one that it never writes."""
    quantizer = {"_pytorch_state_metadata": {"params": {}, "buffers": {"_amax": {"shape": torch.Size(shape)}}}}
    step = (
        mode,
        {"config": config or {}, "metadata": {"quantizer_state": {"model.0.conv.input_quantizer": quantizer}}},
    )
    state = {"modelopt": {"modelopt_state_dict": [step], "modelopt_version": "0.47.0"}, "ranges": {}}
    return lambda content: content.update(modelopt=state)


IMPORTED = {"adapter_cfg": {"*": {"lora_a_init": "harm.teach"}}}  # ModelOpt imports the module that it names
HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "code": (lambda content: content.update(more=Code()), "carries code or classes"),
    "a tensor that claims a terabyte": (swollen, "claims to be"),
    "a model that contains itself": (cyclic, "contains itself: it is not built as an Ultralytics model"),
    "a model without layers": (hollow, "is not built as an Ultralytics model"),
    "an activation to evaluate": (evaluated, "its activation is '__import__"),
    "a layer that is a function": (called, "in its head is no layer"),
    "upsampling layer by layer": (grown, "layers enlarge its maps 8192 times; at most 128"),
    "a hook": (
        lambda content: content["model"]._forward_hooks.update({0: nn.Identity()}),
        "or classes: _forward_hooks",
    ),
    "a hook that installs": (hooked, "not part of an Ultralytics model: getattr"),
    "a forward that installs": (with_a_forward, "not part of an Ultralytics model: getattr"),
    "a forward that is another layer": (
        lambda content: vars(content["model"].model[0]).update(forward=nn.Identity()),
        "carries code or classes: forward of a",
    ),
    "a forward that is a class": (
        lambda content: vars(content["model"].model[0]).update(forward=nn.Linear),
        "carries code or classes: ",
    ),
    "a method that is a layer": (
        lambda content: vars(content["model"]).update(float=nn.Identity()),
        "carries code or classes: float of a",
    ),
    "a class as a key": (lambda content: content.update(more={nn.Linear: 1}), "a dictionary whose keys are not plain"),
    "a class in a namespace": (
        lambda content: content.update(more=IterableSimpleNamespace(kind=nn.Linear)),
        "carries code or classes: Linear",
    ),
    "a method of another layer": (
        lambda content: setattr(content["model"].model[0], "act_of", Conv(3, 3).forward),
        "carries code or classes: Conv.forward",
    ),
    "a layer among the attributes": (
        lambda content: vars(content["model"].model[0]).update(hidden=nn.Upsample(scale_factor=64)),
        "a Upsample has scale_factor=64; at most 8",
    ),
    "layers in a list": (
        lambda content: setattr(content["model"], "hidden", [nn.Identity()]),
        "it holds layers where they are not counted",
    ),
    "a stride that is a layer": (
        lambda content: vars(content["model"]).update(stride=nn.Identity()),
        "it holds layers where they are not counted",
    ),
    "a tensor under many names": (many_buffers, "share so much that they unpack to more"),
    "images of endless size": (
        lambda content: setattr(content["model"], "args", IterableSimpleNamespace(imgsz=nested(lambda *both: [*both]))),
        "more than 200000 values",
    ),
    "a tensor in a namespace": (
        lambda content: content.update(more=IterableSimpleNamespace(kind=torch.zeros(1).expand(2**40))),
        "claims to be",
    ),
    "tensors that share": (shared, "share so much that they unpack to more"),
    "modules that share": (branched, "no walk through them ends"),
    "an upsampling by thousands": (enlarged, "a Upsample has scale_factor=3000; at most 8"),
    "classes that are namespaces": (
        lambda content: setattr(content["model"], "names", {0: IterableSimpleNamespace(a=1)}),
        "there is a IterableSimpleNamespace among its settings, classes or layers",
    ),
    "classes that go on for ever": (
        lambda content: setattr(content["model"], "names", {0: spaces()}),
        "more than 200000 values",
    ),
    "classes that are layers": (
        lambda content: setattr(content["model"], "names", {0: layers()}),
        "it holds layers where they are not counted",
    ),
    "settings that are namespaces": (
        lambda content: content.update(train_args={"task": spaces()}),
        "more than 200000 values",
    ),
    "strides in strides": (
        lambda content: setattr(
            content["model"].model[0].conv, "stride", nested(lambda first, second: [first, second])
        ),
        "a Conv2d has stride=inf; at most 64",
    ),
    "large images": (of_large_images, "takes images of 40000 pixels; at most 4096"),
    "a large stride": (lambda content: setattr(content["model"], "stride", torch.tensor([30000.0])), "stride is 30000"),
    "a call that opens another file": (
        lambda content: content.update(more=Call(DistillationModel, "http://localhost:9/x.pt", content["model"])),
        "not part of an Ultralytics model: ultralytics.nn.distill_model.DistillationModel",
    ),
    "a call that takes memory": (
        lambda content: content.update(more=Call(nn.Linear, 50000, 50000)),
        "not part of an Ultralytics model: Linear",
    ),
    "a call through another": (
        lambda content: content.update(more=Call(functools.partial, nn.Linear, 5, 5)),
        "not part of an Ultralytics model: functools.partial",
    ),
    "a size in words": (
        lambda content: content.update(train_args={"imgsz": "[16384, 64]"}),
        "takes images of ",
    ),
    "a quantization that calls": (quantized(config={"calibrator": (nn.Linear, 5, 5)}), "or classes: Linear"),
    "a quantization that imports": (quantized("peft", IMPORTED), "quantize=8 does not write: peft"),
    "a quantization of a terabyte": (quantized(shape=(2**20, 2**20)), "a range of more than 65536 values"),
    "a quantization of another make": (lambda content: content.update(modelopt=[1]), "is not what quantize=8 writes"),
}


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    models = {"teacher": str(tiny_checkpoint("yolo26s-few.yaml", seed=1)), "student": str(tiny_checkpoint())}
    sizes = {"epochs": 1, "imgsz": 64, "batch": 4, "plots": False}
    return {**models, **sizes, "data": str(tiny_data), "project": str(tmp_path / "runs")}


@pytest.mark.parametrize("role", ["teacher", "student", "pretrained"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_checkpoint_is_refused(
    case: str, role: str, options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    change, reason = HOSTILE[case]
    path = rewrite(tiny_checkpoint(), tmp_path / "bad.pt", change)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(IMAError, match=reason) as caught:
        IMATrainer(overrides={**options, role: str(path)})
    assert f"{role}={path}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_checkpoint_is_not_resumed(
    case: str, options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    change, reason = HOSTILE[case]
    settings = validate({"teacher": options["teacher"]})

    def prepared(content: dict[str, Any]) -> None:
        content.update(epoch=0, ima=pack(settings, "", {}), train_args={"data": options["data"]})
        change(content)

    path = rewrite(tiny_checkpoint(), tmp_path / "last.pt", prepared)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(IMAError, match=reason):
        IMATrainer(overrides={"resume": str(path)})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["val"], ["predict", "source=x.png"], ["export", "format=torchscript"], ["export"]])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_checkpoint_is_opened_by_no_command(
    case: str,
    words: list[str],
    options: dict[str, Any],
    tiny_checkpoint: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    change, reason = HOSTILE[case]
    Path("harm.py").write_text("from pathlib import Path\nPath('touched').touch()\n")
    rewrite(tiny_checkpoint(), Path("bad.pt"), change)
    data = [f"data={options['data']}"] if words == ["val"] else []
    before = sorted(Path().rglob("*"))
    assert cli.main([*words, "model=bad.pt", *data, "imgsz=64", "device=cpu"]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("ima-yolo: model=bad.pt: ")
    assert reason in said
    assert sorted(Path().rglob("*")) == before


def test_a_model_of_int8_training_opens_nothing_without_modelopt(
    options: dict[str, Any], tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics would install it by itself, of a teacher when it is measured beside its student."""
    for name in [name for name in sys.modules if name.startswith("modelopt.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "modelopt", None)
    path = str(rewrite(tiny_checkpoint(), Path("eight.pt").absolute(), quantized()))
    for role in ("teacher", "student", "pretrained"):
        with pytest.raises(IMAError, match=rf"^{role}={path}: a model of quantize=8 needs NVIDIA ModelOpt, .*int8"):
            prepare({**options, role: path})
    assert cli.main(["predict", f"model={path}", "source=x.png"]) == 2


def test_nothing_of_a_layer_is_called_while_it_is_looked_through() -> None:
    """What stands in the place of a dictionary would be asked for its values."""
    told: list[str] = []

    class Telling(nn.ModuleDict):
        def values(self) -> Any:
            told.append("called")
            return super().values()

    for name in ("_modules", "_parameters", "_buffers"):
        layer = nn.Identity()
        vars(layer)[name] = Telling()
        with pytest.raises(IMAError, match=f"{name} of a Identity is not built as an Ultralytics model is"):
            check_content({"model": layer})
    for name in ("_compiled_call_impl", "_forward_hooks"):
        layer = nn.Identity()
        vars(layer)[name] = Telling({"a": nn.Identity()})
        with pytest.raises(IMAError, match=f"carries code or classes: {name} of a Identity"):
            check_content({"model": layer})
    assert not told


def test_no_other_file_is_opened_than_the_one_that_was_looked_at(tiny_checkpoint: Callable[..., Path]) -> None:
    """Ultralytics takes apostrophes out of a name, and spaces around it."""
    shutil.copy(tiny_checkpoint(), "it's.pt")
    rewrite(tiny_checkpoint(), Path("its.pt"), lambda content: content.update(more=Code()))
    with pytest.raises(IMAError, match=r"teacher=it's\.pt: Ultralytics reads no apostrophes"):
        load_model("it's.pt", "teacher")
    assert cli.main(["val", "model=it's.pt", "data=x.yaml"]) == 2
    assert not Path("touched").exists()


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = deflated(tiny_checkpoint(), tmp_path / "bomb.pt")
    with pytest.raises(IMAError, match="unpack to more than the file holds"):
        load_model(path, "teacher")


def test_parts_that_share_their_bytes_are_refused(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Stored and not compressed, but listed so often that they unpack to any size."""
    path = shutil.copy(tiny_checkpoint(), tmp_path / "overlap.pt")
    with zipfile.ZipFile(path, "a") as archive:
        largest = max(archive.filelist, key=lambda part: part.file_size)
        for number in range(100):
            again = copy(largest)
            again.filename = f"{largest.filename}{number}"
            archive.filelist.append(again)
        archive._didModify = True
    with pytest.raises(IMAError, match="unpack to more than the file holds"):
        load_model(path, "teacher")


def test_a_state_file_is_looked_at_in_the_same_way(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "good.pt")
    assert read_state(str(tmp_path / "good.pt"), "t")["a"].tolist() == [0, 0]
    torch.save({"a": Code()}, tmp_path / "code.pt")
    torch.save({"a": torch.zeros(1).expand(2**40)}, tmp_path / "swollen.pt")
    deflated(tmp_path / "good.pt", tmp_path / "bomb.pt")
    for name, reason in (("code", "carries code or classes"), ("swollen", "claims to be"), ("bomb", "unpack to more")):
        with pytest.raises(IMAError, match=rf"ima_teacher_weights=.*{name}\.pt: .*{reason}"):
            read_state(str(tmp_path / f"{name}.pt"), "t")
    assert not Path("touched").exists()


NESTED = """{activation: "__import__('os').mkdir('touched')", backbone: [[-1, 1, Conv, [8, 3, 2]]], head: [], nc: 3}"""


def test_an_architecture_runs_nothing(options: dict[str, Any], tmp_path: Path) -> None:
    text = "nc: 3\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"
    for bad, reason in (
        (f"activation: __import__('os').mkdir('touched')\n{text}", "its activation is"),
        (text.replace("Conv", "torch_safe_load"), "is no layer"),
        (text.replace("Conv", "nn.init.constant_"), "is no layer"),
        (text.replace("Conv, [8, 3, 2]", f"DetectionModel, [{NESTED}]"), "is no layer"),
        (text.replace("Conv, [8, 3, 2]", "YOLOEModel, [nested.yaml]"), "is no layer"),
    ):
        (tmp_path / "bad.yaml").write_text(bad)
        with pytest.raises(IMAError, match=rf"student=.*bad\.yaml: .*{reason}"):
            IMATrainer(overrides={**options, "student": str(tmp_path / "bad.yaml")})
    assert not Path("touched").exists()


@pytest.mark.parametrize("activation", ["nn.SiLU()", "torch.nn.LeakyReLU(0.1)", "nn.ReLU(inplace=True)", None])
def test_an_activation_may_be_a_layer_of_torch(activation: str | None) -> None:
    check_architecture({"activation": activation, "backbone": [], "head": []})


@pytest.mark.parametrize("activation", ["nn", "nn.SiLU", "nn.SiLU(open('x'))", "nn.init.zeros_()", "os.x()", "(" * 500])
def test_an_activation_is_nothing_else(activation: str) -> None:
    with pytest.raises(IMAError, match="its activation is"):
        check_architecture({"activation": activation})


HUGE: dict[str, tuple[dict[str, Any], str]] = {
    "classes": ({"nc": 40_000_000}, "its nc is 40000000; at most 65536"),
    "bins": ({"reg_max": 10_000_000}, "its reg_max is 10000000"),
    "keypoints": ({"kpt_shape": [10**9, 3]}, "its kpt_shape is"),
    "a number as text": ({"backbone": [[-1, 1, "Conv", ["40000000", 3, 2]]]}, "has a number above 8192"),
    "a width as text": ({"scales": {"n": ("1", "4000", 1024)}}, "scales them by more than 10"),
    "repeats inside a layer": ({"backbone": [[-1, 1, "RepNCSPELAN4", [8, 8, 8, 60000]]]}, "has a number above 8192"),
    "an activation of a size": ({"activation": "nn.Linear(40000, 40000)"}, "its activation is"),
    "upsampling": (
        {"backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "nn.Upsample", [None, 80, "nearest"]]]},
        "a Upsample has scale_factor=80",
    ),
    "padding": (
        {"backbone": [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "nn.ZeroPad2d", [6000]]]},
        "a ZeroPad2d has padding=",
    ),
    "layers inside a layer": (
        {"backbone": [[-1, 1500, "nn.Transformer", [1, 1, 8000, 8000, 1]]]},
        "it describes more than 20000 layers",
    ),
    "many wide ones before what is none": (
        {"backbone": [*[[-1, 1, "Conv", [8192, 3, 1]]] * 4, [-1, 1, "Conv", ["x", "y", "z"]]]},
        "it describes ",
    ),
    "many wide ones behind one of torchvision": (
        {"backbone": [[-1, 1, "TorchVision", [8, "x", None]], *[[-1, 1, "Conv", [8192, 3, 1]]] * 4]},
        "it describes ",
    ),
    "bands": ({"channels": 30_000}, "its channels is 30000; at most 1024"),
    "many wide ones": ({"backbone": [[-1, 200, "Conv", [8192, 3, 1]]]}, "it describes 1"),
}


@pytest.mark.parametrize("case", HUGE)
def test_an_architecture_fits_a_memory(case: str) -> None:
    change, reason = HUGE[case]
    sound = {"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    before = torch.get_rng_state()
    check_architecture(sound)
    assert torch.equal(before, torch.get_rng_state()), "what is looked through draws no numbers"
    with pytest.raises(IMAError, match=f"^refused, since .*{reason}"):
        check_architecture({**sound, **change})


def wide(content: dict[str, Any]) -> None:
    """A convolution and a norm of which a product would be made when they are fused."""
    conv = content["model"].model[0].conv
    conv.weight = nn.Parameter(torch.zeros(1, 2**10, 1, 1))


def wide_norm(content: dict[str, Any]) -> None:
    content["model"].model[0].bn = nn.BatchNorm2d(2**12)


def repeated(content: dict[str, Any]) -> None:
    content["model"].model[0].add_module("other", RepConv(8, 8, bn=True))
    content["model"].model[0].other.c1 = 2**16


SIZES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a weight of another size": (wide, "a Conv2d says other sizes than it has"),
    "a norm of another size": (wide_norm, "a Conv says other sizes than it has"),
    "a branch of another size": (repeated, "a RepConv says other sizes than it has"),
    "levels": (lambda content: setattr(content["model"].model[-1], "nl", 10**10), r"nl=1e\+10; at most 16"),
    "bands": (lambda content: content["model"].yaml.update(channels=30_000), "its channels is 30000; at most 1024"),
}


@pytest.mark.parametrize("case", SIZES)
def test_a_checkpoint_says_the_sizes_that_it_has(
    case: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    change, reason = SIZES[case]
    with pytest.raises(IMAError, match=f"refused, since .*{reason}"):
        load_model(rewrite(tiny_checkpoint(), tmp_path / "bad.pt", change), "teacher")


def test_a_resumed_run_opens_no_other_checkpoint_unseen(
    options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The best one is opened when a training ends, from the folder that the run goes on in."""
    run = tmp_path / "elsewhere"
    (run / "weights").mkdir(parents=True)
    (run / "ima.yaml").touch()
    rewrite(tiny_checkpoint(), run / "weights" / "best.pt", lambda content: content.update(more=Code()))
    packed = pack(validate({"teacher": options["teacher"]}), "", {})
    state = {"epoch": 0, "ima": packed, "train_args": {"data": options["data"], "save_dir": str(run)}}
    last = rewrite(tiny_checkpoint(), tmp_path / "last.pt", lambda content: content.update(state))
    with pytest.raises(IMAError, match=r"resume=.*elsewhere/weights/best\.pt: refused, since it carries code"):
        prepare({"resume": str(last), "save_dir": str(run)})
    assert not Path("touched").exists()


def test_two_threads_may_look_at_architectures_at_once() -> None:
    def state() -> tuple[Any, ...]:
        return nn.Module.__init__, nn.Module.__setstate__, nn.Module.register_parameter, Conv.default_act, LOGGER.level

    plain = state()
    sound = {"nc": 3, "backbone": [[-1, 20, "Conv", [8, 3, 1]]], "head": [[[0], 1, "Detect", ["nc"]]]}
    threads = [threading.Thread(target=check_architecture, args=(sound,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state() == plain


@pytest.mark.parametrize("size", ["[6e4]", "[6_5_5_3_6]", "0xffff", [[1, 2], 3], torch.tensor(5)])
def test_images_are_no_larger_than_a_text_says(size: Any, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = rewrite(tiny_checkpoint(), tmp_path / "x.pt", lambda content: content.update(train_args={"imgsz": size}))
    with pytest.raises(IMAError, match=r"takes images of|there is a Tensor among its settings"):
        load_model(path, "teacher")


def test_what_published_and_fused_checkpoints_keep_is_taken(tiny_checkpoint: Callable[..., Path]) -> None:
    """Heads of YOLOv8 and YOLO11 kept `Detect.forward`; a fused layer keeps the way in which it is run."""

    def old_head(content: dict[str, Any]) -> None:
        content["model"].model[-1].detect = Detect.forward

    load_model(rewrite(tiny_checkpoint(), Path("old.pt"), old_head), "teacher")
    for name in ("yolo26n.yaml", "yolov8n.yaml", "yolov10n.yaml", "yolov8n-seg.yaml"):
        yolo = YOLO(name, verbose=False)
        yolo.fuse()
        yolo.save("fused.pt")
        load_model("fused.pt", "teacher")


def test_looking_through_leaves_the_activation_of_other_models_alone() -> None:
    before = Conv.default_act
    check_architecture({"activation": "nn.ReLU()", "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": []})
    assert Conv.default_act is before


def trusted(options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    path = rewrite(
        tiny_checkpoint("yolo26s-few.yaml", seed=1), tmp_path / "own.pt", lambda old: old.update(more=Code())
    )
    return {**options, "teacher": str(path), "ima_trust": True}


def test_one_s_own_file_can_be_trusted(
    options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.preflight.LOGGER.warning", said.append)
    own = trusted(options, tiny_checkpoint, tmp_path)
    plan = prepare(own)
    assert Path("touched").exists()
    assert any("ima_trust=True: code in the checkpoints" in line for line in said)
    packed = pack(plan.settings, "", {})
    assert "ima_trust" not in packed["settings"]
    with pytest.raises(IMAError, match="carries code"):
        load_model(own["teacher"], "teacher")
    with pytest.raises(IMAError, match="ima_trust=1"):
        prepare({**own, "ima_trust": 1})


def test_trust_is_not_resumed(options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Not even where the checkpoint says so."""
    own = trusted(options, tiny_checkpoint, tmp_path)
    packed = pack(validate({"teacher": own["teacher"]}), "", {})
    packed["settings"]["ima_trust"] = True
    state = {"epoch": 0, "ima": packed, "train_args": {"data": options["data"]}}
    last = rewrite(tiny_checkpoint(), tmp_path / "run/weights/last.pt", lambda old: old.update(state))
    with pytest.raises(IMAError, match=r"teacher=.*own\.pt: refused, since it carries code"):
        prepare({"resume": str(last)})
    assert not Path("touched").exists()
    assert prepare({"resume": str(last), "ima_trust": True}).settings.ima_trust


def test_trust_ends_with_its_block(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    path = rewrite(tiny_checkpoint(), tmp_path / "own.pt", lambda old: old.update(more=Code()))
    with trusting(True):
        assert type(load_model(path, "teacher")[0]) is DetectionModel
    with pytest.raises(IMAError):
        load_model(path, "teacher")


def test_a_recipe_cannot_ask_for_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ima_yolo import cli

    (tmp_path / "r.yaml").write_text("teacher: t.pt\nima_trust: true\n")
    assert cli.main(["train", "cfg=r.yaml"]) == 2
    assert "cfg=r.yaml: ima_trust=True is taken from the command line or from Python" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["http://127.0.0.1:9/x.yaml", "/**/**/*q.yaml", "other.yaml"])
def test_a_recipe_names_no_other(named: str, capsys: pytest.CaptureFixture[str], options: dict[str, Any]) -> None:
    from ima_yolo import cli

    Path("recipe.yaml").write_text(f"cfg: '{named}'\n")
    Path("other.yaml").write_text("epochs: 7\n")
    for command in ("train", "compare", "val"):
        code = cli.main([command, "cfg=recipe.yaml", "model=yolo26n.yaml", "student=yolo26n.yaml"])
        err = capsys.readouterr().err
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("ima-yolo: cfg=recipe.yaml: it names a recipe itself")
    begin = [lambda: IMATrainer(cfg="recipe.yaml", overrides=options)]
    begin.append(lambda: IMATrainer(overrides={**options, "cfg": "recipe.yaml"}))
    if named != "other.yaml":
        begin.append(lambda: IMATrainer(overrides={**options, "cfg": named}))
    for one in begin:
        with pytest.raises(IMAError, match=r"^cfg=.*(it names a recipe itself|expected the YAML file of a recipe)"):
            one()


def test_a_recipe_writes_over_no_file(capsys: pytest.CaptureFixture[str], tiny_checkpoint: Callable[..., Path]) -> None:
    Path("mine.onnx").write_text("mine")
    Path("recipe.yaml").write_text("imgsz: 32\noutput: mine.onnx\n")
    assert cli.main(["export", f"model={tiny_checkpoint()}", "cfg=recipe.yaml"]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == "ima-yolo: cfg=recipe.yaml: output=mine.onnx is taken from the command line or from Python, from no file\n"
    )
    assert Path("mine.onnx").read_text() == "mine"
    assert with_recipe({"cfg": "recipe.yaml", "output": "a.onnx"}) == {"imgsz": 32, "output": "a.onnx"}


@pytest.mark.parametrize("said", ["exist_ok: true", "resume: last.pt"])
def test_a_recipe_writes_over_no_run(said: str, options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    from ima_yolo import cli

    Path("recipe.yaml").write_text(f"project: runs\nname: best\n{said}\n")
    key = said.partition(":")[0]
    with pytest.raises(IMAError, match=f"{key}=.* is taken from the command line"):
        IMATrainer(cfg="recipe.yaml", overrides=options)
    assert with_recipe({"cfg": "recipe.yaml", key: False})[key] is False
    code = cli.main(["train", "cfg=recipe.yaml", "teacher=gone.pt", "student=gone.pt", "data=gone.yaml"])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert f"cfg=recipe.yaml: {key}=" in err
    assert "is taken from the command line or from Python" in err


def test_what_a_run_s_own_file_says_of_it_ends_with_it(options: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "finished"
    run.mkdir()
    said = {
        "save_dir": str(run),
        "exist_ok": True,
        "resume": "last.pt",
        "cfg": "other.yaml",
        "epochs": 7,
    }
    Path("args.yaml").write_text(yaml.safe_dump(said))
    assert with_recipe({"cfg": "args.yaml"}) == {"epochs": 7}
    rest = {key: value for key, value in options.items() if key != "epochs"}
    student = rest.pop("student")
    begin: list[Callable[[], Any]] = [lambda: IMATrainer(cfg="args.yaml", overrides={**rest, "model": student})]
    begin.append(  # as YOLO reads it
        lambda: IMATrainer(overrides={**said, **rest, "model": student, "cfg": "args.yaml", "resume": False})
    )
    for one in begin:
        trainer = one()
        assert trainer.args.epochs == 7
        assert not trainer.args.resume
        assert not trainer.args.exist_ok
        assert trainer.save_dir.parent == tmp_path / "runs"
    assert list(run.iterdir()) == []
    Path("ima.yaml").write_text(f"teacher: {options['teacher']}\nteacher_digest: abc\n")
    assert IMATrainer(cfg="ima.yaml", overrides={**rest, "model": student}).settings.teacher == options["teacher"]


def test_a_yes_to_resume_in_a_file_stays_the_file_s(options: dict[str, Any], tiny_checkpoint) -> None:
    """`YOLO.train` puts the path of the model that it has opened in its place."""
    state = {"epoch": 0, "optimizer": {}, "train_args": {}}
    last = rewrite(tiny_checkpoint(), Path("last.pt"), lambda old: old.update(state))
    Path("r.yaml").write_text("resume: true\n")
    with pytest.raises(IMAError, match=r"cfg=.*r\.yaml: resume=True is taken from the command line or from Python"):
        YOLO(str(last)).train(trainer=IMATrainer, cfg="r.yaml", teacher=options["teacher"], data=options["data"])
    assert not Path("runs").exists()


def test_nobody_can_tell_whose_yes_to_resume_it_was(options: dict[str, Any], tiny_checkpoint) -> None:
    """A run that was resumed says so in args.yaml, and the user says it too: it is refused, not begun anew."""
    state = {"epoch": 0, "optimizer": {}, "train_args": {}}
    last = rewrite(tiny_checkpoint(), Path("last.pt"), lambda old: old.update(state))
    Path("args.yaml").write_text(yaml.safe_dump({"save_dir": "runs/x", "resume": str(last)}))
    for more in ({"resume": True}, {}):
        with pytest.raises(IMAError, match=r"args\.yaml: resume= is that of its own run; give resume=False, or go on"):
            YOLO(str(last)).train(trainer=IMATrainer, cfg="args.yaml", teacher=options["teacher"], **more)


def test_a_recipe_among_the_overrides_is_read(options: dict[str, Any], tiny_checkpoint) -> None:
    content = {"ima_loss": "cwd", "epochs": 7, "imgsz": 32, "student": "gone.yaml", "ima_levels": None}
    Path("r.yaml").write_text(yaml.safe_dump(content))
    own = {key: value for key, value in options.items() if key not in ("epochs", "student")}
    own["model"] = options["student"]
    trainer = IMATrainer(overrides={**own, "cfg": "r.yaml", "imgsz": 64})
    assert (trainer.settings.ima_loss, trainer.args.epochs, trainer.args.imgsz) == ("cwd", 7, 64)
    assert trainer.args.model == options["student"]
    as_yolo_reads_it = {**content, **own, "cfg": "r.yaml"}
    assert IMATrainer(overrides=as_yolo_reads_it).args.model == options["student"]
    Path("folder.yaml").mkdir()
    for name in ("gone.yaml", "folder.yaml", "r.txt", "paper"):
        with pytest.raises(IMAError, match=f"^cfg={name}: expected the YAML file of a recipe"):
            IMATrainer(overrides={**options, "cfg": name})


def test_the_place_of_a_finished_run_is_told_to_be_left(options: dict[str, Any], tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.given.LOGGER.warning", said.append)
    Path("args.yaml").write_text(f"save_dir: {tmp_path / 'finished'}\n")
    IMATrainer(overrides={**options, "cfg": "args.yaml", "save_dir": str(tmp_path / "finished")})
    assert any("args.yaml: save_dir of its own run: not taken over, results go elsewhere" in line for line in said)


@pytest.mark.parametrize("kind", ["trust", "function"])
@pytest.mark.parametrize("way", ["cfg", "overrides", "model"])
def test_a_file_that_python_names_decides_no_more_than_a_recipe(
    kind: str, way: str, options: dict[str, Any], tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "sent.py").write_text("open('touched', 'w')\ndef build(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    named: dict[str, Any] = {"teacher": "sent:build"}
    if kind == "trust":
        named = trusted(options, tiny_checkpoint, tmp_path)
        named = {key: named[key] for key in ("teacher", "ima_trust")}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(named))
    rest = {key: value for key, value in options.items() if key != "teacher"}
    student = {"model": rest.pop("student", None) or rest.pop("model")}
    begin: dict[str, Callable[[], Any]] = {
        "cfg": lambda: IMATrainer(cfg="r.yaml", overrides={**rest, **student}),
        "overrides": lambda: IMATrainer(overrides={**named, **rest, **student, "cfg": "r.yaml"}),  # as it reads them
        "model": lambda: YOLO(student["model"]).train(trainer=IMATrainer, cfg="r.yaml", **rest),
    }
    with pytest.raises(
        IMAError, match=r"cfg=.*r\.yaml: (it would run its teacher|ima_trust=True is taken from)"
    ) as why:
        begin[way]()
    if kind == "function":
        do = "add" if way == "cfg" else "take it out of the file and give"
        assert str(why.value).endswith(f"if that is yours, {do} teacher=sent:build")
    assert not Path("touched").exists()


@pytest.mark.parametrize("case", ["a bomb", "merged twice at each level", "a number to the base of 60", "a tag"])
def test_hostile_yaml_is_refused_where_python_names_it(case: str, options: dict[str, Any]) -> None:
    content, reason = YAML[case]
    Path("bad.yaml").write_text(content)
    began = time.monotonic()
    with pytest.raises(IMAError, match=rf"cfg=bad\.yaml: .*{reason}"):
        IMATrainer(cfg="bad.yaml", overrides=options)
    assert time.monotonic() - began < 20
    with pytest.raises(IMAError, match=r"cfg=gone\.yaml: "):
        IMATrainer(cfg="gone.yaml", overrides=options)


def test_what_python_says_beside_a_file_wins(options: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("teacher: sent:build\nepochs: 7\n")
    trainer = IMATrainer(cfg="r.yaml", overrides={**options, "cfg": "r.yaml"})
    assert trainer.settings.teacher == options["teacher"]


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 12)
)
YAML = {
    "a bomb": (BOMB, "more than 200000 values"),
    "itself": ("a: &a [*a]\n", "more than 200000 values"),
    "depth": ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    "a tag": ("a: !!python/object/apply:pathlib.Path.touch [touched]\n", "could not determine a constructor"),
    "a NUL": ("a: x\0y\n", "(special|control) characters are not allowed"),
    "a number of 5,000 digits": ("a: " + "9" * 5000, "more than 100 digits"),
    "a number to the base of 60": ("a: 1" + ":1" * 400_000, "more than 100 digits"),
    "merged twice at each level": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 28)),
        "more than 200000 values",
    ),
    "merged into many": (
        f"a: &a {{{', '.join(f'k{n}: 1' for n in range(50_000))}}}\n"
        + "".join(f"b{n}: {{<<: *a}}\n" for n in range(1000)),
        "more than 200000 values",
    ),
    "empty ones merged": (
        "e: &e {}\nl: &l [" + ",".join(["*e"] * 4000) + "]\n" + "".join(f"b{n}: {{<<: *l}}\n" for n in range(2000)),
        "more than 200000 values",
    ),
    "directives": ("".join(f"%TAG !a{n}! tag:x\n" for n in range(100_000)) + "---\na: 1\n", "more than 100 directives"),
    "directives after other ends of lines": (
        "".join(f"%TAG !a{n}! x{end}" for n in range(34) for end in "\r\x85\u2028") + "---\na: 1\n",
        "more than 100 directives",
    ),
    "a date that is none": ("a: !!timestamp x\n", "groupdict"),
    "keys of one hash": (
        "{" + ",".join(f"{n * (2**61 - 1)}: 1" for n in range(1, 99_000)) + "}",
        "a whole number beyond",
    ),
    "merged into itself": ("a: &a {<<: *a}\n", "nested too deeply"),
    "a long list": (f"a: [{'1,' * 4_000_000}1]\n", "more than 200000 values"),
}


@pytest.mark.parametrize("case", YAML)
def test_hostile_yaml_is_refused_wherever_it_stands(case: str, tmp_path: Path) -> None:
    content, reason = YAML[case]
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    began = time.monotonic()
    with pytest.raises(IMAError, match=rf"cfg=.*bad\.yaml: .*{reason}"):
        read_plain(path, "cfg")
    assert time.monotonic() - began < 20  # a second or so; without bounds minutes
    with pytest.raises(IMAError, match=reason):
        read_data_set(str(path))
    assert not Path("touched").exists()


def test_aliases_in_moderation_are_read(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("a: &a [1, 2]\nb: *a\nc: {d: *a}\n")
    assert read_plain(tmp_path / "good.yaml", "cfg") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


DATA = {
    "a script": ("train: gone\nval: gone\nnames: [a]\ndownload: open('touched', 'w')\n", "a script, which is not run"),
    "a shell script": ("train: gone\nval: gone\nnames: [a]\ndownload: bash touch touched\n", "which is not run"),
    "a number for a path": ("path: 5\ntrain: a\nval: b\nnames: [a]\n", "path=5: expected a path"),
    "a mapping for a path": ("train: {a: b}\nval: b\nnames: [a]\n", "train={'a': 'b'}: expected a path"),
    "a NUL in a path": ('train: "a\\0b"\nval: b\nnames: [a]\n', "expected a path"),
    "a list": ("- a\n", "expected lines of 'key: value'"),
}


@pytest.mark.parametrize("case", DATA)
def test_a_hostile_data_file_is_refused(case: str, tmp_path: Path) -> None:
    content, reason = DATA[case]
    path = tmp_path / "data.yaml"
    path.write_text(content)
    with pytest.raises(IMAError, match=reason) as caught:
        read_data_set(str(path))
    assert "\n" not in str(caught.value)
    assert not Path("touched").exists()


def test_a_cache_of_labels_runs_nothing(tiny_data: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_data.parent, tmp_path / "set")
    data = root / "data.yaml"
    data.write_text(data.read_text().replace(str(tiny_data.parent), str(root)))
    cache = root / "labels" / "train.cache"
    with cache.open("wb") as file:
        np.save(file, {"labels": [np.zeros((1, 4), np.float32)], "hash": "x"})
    read_data_set(str(data))
    for content in ({"labels": Code()}, [Code()]):
        with cache.open("wb") as file:
            np.save(file, np.array(content, dtype=object))
        with pytest.raises(IMAError, match=r"train\.cache: refused, since it (carries code|has another form)"):
            read_data_set(str(data))
    cache.write_bytes(pickle.dumps(Code()))
    with pytest.raises(IMAError, match=r"train\.cache: refused"):
        read_data_set(str(data))
    assert not Path("touched").exists()


@pytest.mark.parametrize("kind", ["initializer", "constant"])
@pytest.mark.parametrize("place", ["../secret.bin", "absolute", "link.bin", "deep/secret.bin", "beside.bin"])
@pytest.mark.parametrize("count", [4, 64, 1800])
def test_an_onnx_file_reads_no_other_file(
    count: int, place: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a path that leaves its folder, nor by a link, nor beside it or in the current folder."""
    (tmp_path / "in").mkdir()
    secret = tmp_path / "secret.bin"
    for file in (secret, tmp_path / "in" / "beside.bin"):
        file.write_bytes(np.ones(count, np.float32).tobytes())
    (tmp_path / "in" / "link.bin").symlink_to(secret)
    (tmp_path / "in" / "deep").symlink_to(tmp_path)
    weight = TensorProto(name="w", data_type=1, dims=[count], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=str(secret) if place == "absolute" else place)
    ends = [helper.make_tensor_value_info(name, 1, [count]) for name in "xy"]
    nodes = [helper.make_node("Constant", [], ["w"], value=weight)] if kind == "constant" else []
    nodes.append(helper.make_node("Add", ["x", "w"], ["y"]))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight] if kind == "initializer" else [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "in" / "m.onnx"
    path.write_bytes(made.SerializeToString())
    for folder in (tmp_path, path.parent):
        monkeypatch.chdir(folder)
        with pytest.raises(IMAError, match="refused, since its weights are in another file"):
            open_session(path)
    assert cli.main(["val", f"model={path}", "data=x.yaml"]) == 2


OFFLINE = """
import socket, sys
calls = []
def refuse(*args, **kwargs):
    calls.append(args)
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from ima_yolo import cli
teacher, student, data, folder = sys.argv[1:]
common = [f"project={folder}", "imgsz=64"]
train = ["epochs=1", "batch=4", f"teacher={teacher}", f"student={student}", f"data={data}", "name=run"]
best = f"{folder}/run/weights/best.pt"
assert cli.main(["train", *train, *common]) == 0
assert cli.main(["export", f"model={best}", "imgsz=64"]) == 0
image = f"{data.removesuffix('data.yaml')}images/val/0.png"
for model in (best, best.replace(".pt", ".onnx")):
    assert cli.main(["predict", f"model={model}", f"source={image}", f"project={folder}"]) == 0
asked = {str(call[0]) for call in calls}
assert asked <= {"one.one.one.one", "dns.google"}, calls
print("no call")
"""


def test_with_local_files_no_network_call_is_made(options: dict[str, Any], tmp_path: Path) -> None:
    """Without YOLO_OFFLINE, when Ultralytics looks up two names as it is imported, to see whether it is online.

    A font is at hand, as after its first use anywhere.
    """
    words = [options["teacher"], options["student"], options["data"], str(tmp_path / "runs")]
    environment = {key: value for key, value in os.environ.items() if key != "YOLO_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, *words], capture_output=True, text=True, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert done.stdout.rstrip().endswith("no call")


def test_offline_not_even_a_name_is_looked_up() -> None:
    code = OFFLINE.partition("teacher, student")[0] + "import ima_yolo.trainer\nassert not calls, calls"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "YOLO_OFFLINE": "true"})


def test_layers_are_all_of_torch_or_ultralytics() -> None:
    assert issubclass(nn.SiLU, nn.Module)
    check_architecture({"backbone": [[-1, 1, "nn.Upsample", [None, 2, "nearest"]]], "head": [[-1, 1, "Concat", [1]]]})
