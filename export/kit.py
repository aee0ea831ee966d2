"""The deployment kit: a folder with the model, the exact commands for it, a sample picture and a self-check."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ima_yolo.errors import IMAError

from .expected import differs, form
from .metadata import GraphKind, Metadata
from .results import ClassMap, Result
from .runtime import Detector
from .samples import sample_images
from .sources import READ_AS, need_image

CONF = 0.25
"""Threshold of the expected detections; where nothing is above it, the first of `LOWER` that finds something."""

LOWER = (0.1, 0.01, 0.001)

LOOKED_AT = 20
"""Pictures of which the first is the sample in which something is found."""

CHECK = '''"""Run the model on the sample picture and compare with what it gave where this kit was made.

    python self_check.py

Exit code 0: the same detections. 1: they differ. 2: they could not be compared.
"""

import sys
from pathlib import Path

from ima_yolo.errors import IMAError
from ima_yolo.export.kit import self_check

try:
    code = self_check(Path(__file__).resolve().parent)
except IMAError as error:
    print(f"self-check FAILED: {error}", file=sys.stderr)
    code = 2
raise SystemExit(code)
'''


def write_kit(model: Path, images: Sequence[Path] | None = None) -> Path:
    """Write the kit of a file beside it, as NAME_kit.

    Args:
        model: An ONNX file that `Detector` takes.
        images: Pictures; the first in which something is found is the sample, one is drawn if there are none.

    Returns:
        The folder, which must not exist before.

    Raises:
        IMAError: The folder exists or cannot be written, the model cannot be used, or finds nothing in the pictures.
    """
    folder = free_folder(model)
    detector = Detector(model)
    try:
        with tempfile.TemporaryDirectory(prefix=".ima-kit-", dir=model.parent) as name:
            kit = Path(name) / "kit"
            kit.mkdir()
            _fill(kit, model, detector, images)
            os.replace(kit, folder)
    except OSError as error:
        raise IMAError(f"{folder}: cannot be written ({error.strerror})") from error
    return folder


def free_folder(model: Path) -> Path:
    """The folder of a file's kit, which a caller may ask for before the file is there.

    Raises:
        IMAError: It exists.
    """
    folder = model.with_name(f"{model.stem}_kit")
    if folder.exists():
        raise IMAError(f"{folder} exists already; move it away first")
    return folder


def _fill(kit: Path, model: Path, detector: Detector, images: Sequence[Path] | None) -> None:
    shutil.copyfile(model, kit / model.name)
    with tempfile.TemporaryDirectory() as drawn:
        pictures = images or sample_images(Path(drawn), detector.metadata.channels)
        source, conf, found = _expected(detector, pictures[:LOOKED_AT])
        sample = kit / f"sample{source.suffix.lower()}"
        shutil.copyfile(source, sample)
    content = {"model": model.name, "sample": sample.name, "conf": conf, **form(found)}
    (kit / "expected.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (kit / "self_check.py").write_text(CHECK, encoding="utf-8")
    (kit / "README.md").write_text(_readme(model, sample, detector.metadata, conf, found), encoding="utf-8")


def _expected(detector: Detector, pictures: Sequence[Path]) -> tuple[Path, float, Result]:
    """A picture in which something is found, the threshold at which it is, and what it is.

    Raises:
        IMAError: Nothing is found in any, so that a check would prove nothing.
    """
    read = cache(lambda picture: need_image(picture, detector.metadata.channels))  # mostly the first is enough
    for conf in (CONF, *LOWER):
        for picture in pictures:
            found = detector(read(picture), conf=conf)
            if isinstance(found, ClassMap) or len(found):
                return picture, conf, found
    raise IMAError(
        f"kit=True: the model finds nothing in the sample pictures, with conf={LOWER[-1]} either, so that no check "
        "could fail; give pictures of what it knows by images="
    )


def self_check(folder: Path) -> int:
    """Compare the model's result on this machine with the expected one, and print the outcome.

    Args:
        folder: A kit.

    Returns:
        0 if they are the same, else 1.

    Raises:
        IMAError: The kit is not complete.
    """
    try:
        content = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        detector = Detector(folder / content["model"])
        image = need_image(folder / content["sample"], detector.metadata.channels)
        fault = differs(content, detector(image, conf=content["conf"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, IMAError):
            raise
        raise IMAError(f"{folder}: the kit is not complete ({type(error).__name__}: {error})") from error
    print(f"self-check FAILED: {fault}" if fault else "self-check passed")  # noqa: T201 - this is the command
    return 1 if fault else 0


def _readme(model: Path, sample: Path, metadata: Metadata, conf: float, found: Result) -> str:
    """The exact commands for this model."""
    height, width = metadata.imgsz
    names, file = ", ".join(metadata.names.values()), shlex.quote(model.name)
    imported, read = _reading(sample, metadata.channels)
    what, videos = f"pictures of {metadata.channels} channels", ""
    if metadata.channels in READ_AS:
        what = "pictures, a video, a camera (by its number) or a stream"
        videos = f"ima-yolo predict model={file} source=clip.mp4\n"
        videos += f"ima-yolo predict model={file} source=0 max_frames=100\n"
    nms = " iou=0.7" if metadata.kind is GraphKind.RAW and metadata.task != "semantic" else ""
    return f"""# {model.stem}

A {metadata.task} model with {metadata.kind.value} outputs, {width}x{height} px, {len(metadata.names)} classes: {names}.
It runs with NumPy, OpenCV and ONNX Runtime; PyTorch is not needed.

Install, in a virtual environment of the device and in a clone of IMA-YOLO:

```sh
pip install ".[edge]"
```

Check that the model gives here what it gave where this folder was made ({found.summary()} in `{sample.name}`):

```sh
python self_check.py
```

Run it on {what}:

```sh
ima-yolo predict model={file} source={sample.name} conf={conf}{nms} save_json=True
{videos}ima-yolo benchmark model={file} source={sample.name}
```

In Python:

```python
{imported}

detector = Detector({json.dumps(model.name)})
found = detector({read}, conf={conf})
print(found.summary())
```
"""


def _reading(sample: Path, channels: int) -> tuple[str, str]:
    """The imports and the call that read a picture for a model in Python."""
    if channels == 3:
        return "import cv2\nfrom ima_yolo.export import Detector", f'cv2.imread("{sample.name}")'
    imported = "from pathlib import Path\nfrom ima_yolo.export import Detector\n"
    imported += "from ima_yolo.export.sources import need_image"
    return imported, f'need_image(Path("{sample.name}"), channels={channels})'
