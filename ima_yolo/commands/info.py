"""`ima-yolo cfg`, `help` and `version`: pages to read."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

from ima_yolo import __version__
from ima_yolo.cli import COMMANDS
from ima_yolo.commands.options import recipe_path
from ima_yolo.errors import IMAError

STUDY_KEYS = """\
seeds=       each arm is trained once with each; one seed gives no interval, three are a start
holdout=     0.3 evaluates on a seeded 30% of train instead of val, so that val stays untouched while you choose
jobs=        trainings at a time, on one device too (each with its own workers=, so give few)
devices=     where, for example devices=0,1; jobs= are dealt out over them in turn
ray=         auto, local or an address: trainings on a Ray cluster (pip install '.[ray]'), each with
             ray_cpus= and ray_gpus= (0.25: four on one GPU); files must lie under the same paths on all machines
name=        the study's folder in project=; the same call goes on where it was and keeps what is finished
resume_arms= True: a training that was stopped goes on from its last checkpoint (not bit for bit); else it begins again
force=       go on although code or packages have changed
Every other key is that of `ima-yolo train` and shared by all arms."""

EXAMPLES = {
    "train": """\
  ima-yolo train teacher=yolo26m.pt student=yolo26n.pt data=my.yaml epochs=100 imgsz=640
  ima-yolo train cfg=my_recipe.yaml device=0
  ima-yolo train resume=True model=runs/detect/train/weights/last.pt

teacher=   checkpoint to learn from            student=   checkpoint or .yaml to train (also: model=)
ima_*=     settings of the distillation        cfg=       YAML with any of these keys, or a recipe's name
Every key of `yolo train` works unchanged. `ima-yolo cfg` explains the ima_* keys.""",
    "val": "  ima-yolo val model=best.pt data=my.yaml imgsz=640\n\nEvery key of `yolo val` works unchanged.",
    "predict": """\
  ima-yolo predict model=best.onnx source=images/ conf=0.25
  ima-yolo predict model=best.onnx source=clip.mp4 save_csv=True
  ima-yolo predict model=best.onnx source=0 max_frames=100     a camera; or rtsp://..., http://...
  ima-yolo predict model=best.onnx source=a.jpg,clip.mp4       several; or a .txt file with one a line
  ima-yolo predict model=best.pt source=bus.jpg

A .onnx model runs with numpy, OpenCV and ONNX Runtime alone:
  conf= iou= max_det= classes= agnostic_nms=        which detections are kept
  save= save_txt= save_conf= save_json= save_csv= save_coco=   what is written
  project= name= exist_ok= verbose=                 where, and whether a line is printed for each
  vid_stride= max_frames=                           which frames of videos, streams and cameras
  batch=8                                           pictures that go through the model together
  threads=2 providers= imgsz=                       threads of an operator (one a core), ONNX Runtime's providers, and
                                                    the size of the input of files exported with dynamic=True
A camera or stream ends by Ctrl-C or SIGTERM; JSON is whole at any time, tables and videos once it has ended.
coco.json numbers classes as `yolo val save_json=True` does: from 1, the 80 of COCO as COCO does. In labels and
predictions.json a mask of several parts is one polygon, whose parts are connected by bridges of no width.
Keys of `yolo predict` that ask for what happens anyway (device=cpu, half=False) are taken as well.
Models of other kinds (.pt and so on) go to Ultralytics, with every key of `yolo predict`.""",
    "export": """\
  ima-yolo export model=best.pt format=onnx imgsz=640
  ima-yolo export model=best.pt nms=False          an NMS-free graph, where the model has such a head
  ima-yolo export model=best.pt quantize=8 data=my.yaml imgsz=640    int8, as best_int8.onnx
  ima-yolo export model=best.pt kit=True           a folder to copy to the device, with a self-check

The ONNX file is checked and compared with torch on real images before it is put in place.
  output=    file or folder to write          images=    pictures to compare on, a file, folder or pattern
  imgsz= nms= dynamic= quantize=16 ...        as in `yolo export format=onnx`
With quantize=8 (model= may be a float .onnx file, too) the training images of data= calibrate, its validation images
measure, and the most sensitive layers stay in float until the loss is kept:
  max_loss=0.005             loss of mAP50-95 that is accepted
  calibration=percentile     or entropy, minmax       percentile=99.999       calibration_images=64
Other formats are exported by Ultralytics, with its own keys and without the comparison.""",
    "benchmark": """\
  ima-yolo benchmark model=best.onnx source=images/ threads=1,2 batch=1,8
  ima-yolo benchmark model=best_int8.onnx against=best.onnx

model=     the file that our runtime runs       against=   the file that Ultralytics' predictor runs (model=)
threads=   threads of an operator, 0 = one a core              batch=    pictures a call
rounds=    rounds, in which both sides take turns (7)          seconds=  length of a side's part of a round (1)
source=    pictures (three drawn ones)          imgsz=    size of the input, for files exported with dynamic=True
output=    folder of the table, the plot and the figures in JSON
Both sides run in processes of their own; without Ultralytics only ours is measured.

  ima-yolo benchmark train teacher=yolo26m.yaml student=yolo26n.yaml imgsz=320,640

times a training step instead: plain, with Ultralytics' own distillation, with ours, the teacher alone, and the parts
of our step (of the first size), in turns, with peak memory. Models are architectures or checkpoints, one teacher, the
images are random.
floor          a plain step and the teacher's forward pass up to its neck, by PyTorch
floor as run   a plain step and the teacher as our step asks it, in the runtime that our step uses
imgsz=320 batch=8 rounds=7 device= threads= output= and every ima_ key; what is measured already is not run again
where models, rounds, code and machine are the same
threads=       of PyTorch; on a CPU by default what Ultralytics trains with, one less than cores, from 1 to 8""",
    "compare": f"""\
  ima-yolo compare teacher=yolo26m.pt student=yolo26n.pt data=my.yaml epochs=50 arms=none,builtin,ima seeds=0,1,2

arms=        none, builtin (Ultralytics' distill_model=), ima, its halves features and heads, and the losses of other
             papers l2, mgd, cwd, pkd, which compare features alone, as the arm features does and ima does not; or a
             mapping, in a recipe (cfg=) or typed, as "arms={{'none': {{}}, 'ima': {{}},
             'mild': {{'ima_weight_ratio': 0.1}}, 'sgd': {{'like': 'none', 'optimizer': 'SGD'}}}}"
{STUDY_KEYS}""",
    "ablate": f"""\
  ima-yolo ablate what=parts ...                             the paper's table: plain, + mask, + standardization, ...
  ima-yolo ablate what=default values=mask,features ...      the default, and the default less each of these parts
  ima-yolo ablate what=mask teacher=yolo26m.pt student=yolo26n.pt data=my.yaml epochs=50 seeds=0,1,2
  ima-yolo ablate what=mask_ratio values=0.1,0.3,0.5,0.7 ...

what=        parts; default (less mask, generator, standardization, deflation, cls, box, features, heads, gate, balance:
             all, or those of values=); or a setting without its ima_: mask, generator, standardize, deflation,
             instance, objects, boxes, adapter, loss, schedule (each of its choices is an arm), or a number with values=
             what else follows: only what is hidden in space has a generator, so less mask and a mask of frequencies are
             without one; less gate, features weigh a tenth (what=gate keeps their weight)
{STUDY_KEYS}""",
    "sweep": f"""\
  ima-yolo sweep cfg=sweep_weight teacher=yolo26m.pt student=yolo26n.pt data=my.yaml seeds=0,1,2 holdout=0.3
  ima-yolo sweep space="{{'ima_weight': {{'low': 0.1, 'high': 10, 'log': True}}}}" trials=20 ...

space=       keys to their values; lists alone make a grid, a range (low, high, log) is searched by Optuna's TPE
trials=      how many settings to try where it is no grid (default 20)
{STUDY_KEYS}""",
    "report": """\
  ima-yolo report study=runs/compare/compare

pictures=False leaves images of the data out, for reports that go where the images may not.
Writes report.html, which stands alone, and report.md of what is finished. Works on a folder that came from another
machine, without pictures where checkpoints or images are absent.""",
    "teachers": """\
  ima-yolo teachers student=yolo26n.pt data=my.yaml candidates=yolo26s.pt,yolo26m.pt,rtdetr-l.pt imgsz=640

candidates=   as for teacher=, separated by commas
images=       validation images to look at (32)      output=   the plot (teachers.png)
mAP50-95      the teacher's own accuracy on the data
CKA           likeness of its features with the student's, 0 to 1
gap           divergence of the values of both, as they are and after instance standardization, 0 to 1
ms/image, MiB what it costs in a step of a training: time, and peak of memory with a batch of 8 (measured apart)
ima_teacher_weights=    as in a training: one value for those without weights of their own, or one for each""",
    "demo": "  ima-yolo demo\n  ima-yolo demo output=my_demo seed=1",
    "cfg": "  ima-yolo cfg             every key of this package with its default\n  ima-yolo cfg paper       a recipe",
    "help": "  ima-yolo help train",
    "version": "  ima-yolo version",
}
PACKAGES = ("ultralytics", "torch", "torchvision", "onnx", "onnxruntime", "opencv-python", "numpy", "pydantic")


def help_page(options: dict[str, Any]) -> int:
    """Print the overview, or the page of the commands that are named."""
    _no_keys(options)
    names = options.get("") or []
    for name in names:
        if name not in COMMANDS:
            raise IMAError(f"'{name}' is not a command; commands: {', '.join(COMMANDS)}")
        print(f"ima-yolo {name}: {COMMANDS[name][2]}\n\n{EXAMPLES[name]}")
    if not names:
        print(_overview())
    return 0


def _no_keys(options: dict[str, Any]) -> None:
    if keys := [key for key in options if key]:
        raise IMAError(f"'{keys[0]}=': this command takes no key=value")


def _overview() -> str:
    commands = "\n".join(f"  {name:<9} {what}" for name, (_, _, what) in COMMANDS.items())
    return f"""IMA-YOLO {__version__}: a small YOLO model learns from a big one

usage: ima-yolo COMMAND key=value ...

{commands}

example:
{EXAMPLES["train"].splitlines()[0]}

Mistakes in settings and files give one line and exit code 2. IMA_TRACEBACK=1 shows where they were found."""


def cfg(options: dict[str, Any]) -> int:
    """Print the defaults, or the recipes that are named."""
    _no_keys(options)
    for name in options.get("") or ["default"]:
        path = recipe_path(name)
        if not path.is_file():
            raise IMAError(f"cfg={name}: no such file")
        print(path.read_text(encoding="utf-8").rstrip())
    return 0


def version(options: dict[str, Any]) -> int:
    """Print the versions of this package, of Python and of the packages in use."""
    _no_keys(options)
    for word in options.get("", []):
        raise IMAError(f"'{word}': this command takes nothing")
    print(f"ima-yolo {__version__}, Python {platform.python_version()} on {sys.platform}")
    for package in PACKAGES:
        try:
            print(f"  {package:<14} {version_of(package)}")
        except PackageNotFoundError:
            print(f"  {package:<14} not installed")
    return 0
