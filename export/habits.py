"""Keys that users of `yolo predict` type by habit: taken where they change nothing, else told what does it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ima_yolo.errors import IMAError

AS_THE_FILE = "the file decides it: set it when you export"

HABITS: dict[str, tuple[tuple[Any, ...], str]] = {
    "device": (("cpu", "", "-1", -1), "the CPU is used; choose others by providers=, such as CUDAExecutionProvider"),
    "mode": (("predict",), "the command is predict already"),
    "half": ((False,), f"{AS_THE_FILE} with quantize=16"),
    "int8": ((False,), f"{AS_THE_FILE} with quantize=8"),
    "quantize": ((32, "32"), f"{AS_THE_FILE} with quantize=8 or 16"),
    "nms": ((), f"{AS_THE_FILE} with nms=True or nms=False"),
    "dnn": ((False,), "ONNX Runtime runs the file"),
    "compile": ((False,), "ONNX Runtime optimizes the file when it opens it"),
    "augment": ((False,), "an exported file runs once a picture"),
    "rect": ((True, False), ""),
    "stream": ((True, False), ""),
    "stream_buffer": ((False,), "frames are taken as they come"),
    "workers": (tuple(range(65)), "pictures are read one after the other"),
    "show": ((False,), "nothing is shown in a window; drawn pictures are saved (save=True)"),
    "visualize": ((False,), "an exported file gives no feature maps"),
    "embed": ((), "an exported file gives no feature maps"),
    "save_crop": ((False,), "cut the boxes out with save_csv=True or save_json=True"),
    "save_frames": ((False,), "frames are saved as a video"),
    "retina_masks": ((False,), "in Python, iterating over `masks` gives them at the picture's size"),
    "show_labels": ((True,), "use save_json=True and draw them as you like"),
    "show_conf": ((True,), "use save_json=True and draw them as you like"),
    "show_boxes": ((True,), "use save_json=True and draw them as you like"),
    "line_width": ((), "the width follows from the size of the picture"),
}
"""Key of Ultralytics -> values that change nothing here, and what to do in place of any other."""


def without_habits(options: Mapping[str, Any]) -> dict[str, Any]:
    """Take out the keys of Ultralytics that ask for what happens anyway.

    Raises:
        IMAError: One asks for something else; the message says what does it.
    """
    kept = {}
    for key, value in options.items():
        if key not in HABITS:
            kept[key] = value
            continue
        harmless, advice = HABITS[key]
        if value is not None and value not in harmless:
            raise IMAError(f"{key}={value}: has no effect on an .onnx file" + (f"; {advice}" if advice else ""))
    return kept
