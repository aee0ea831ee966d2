"""An ONNX file opened with ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from ima_yolo.errors import IMAError

from .external import check_alone
from .machine import MOST_THREADS
from .metadata import GraphKind, Metadata, parse_metadata

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

CPU = "CPUExecutionProvider"

Provider = str | tuple[str, dict[str, Any]]
Providers = str | Sequence[Provider]

WRONG = ["Pad_Fusion"]
"""Optimizers of ONNX Runtime that change results: this one lets a MaxPool ignore zeros that were padded on before it,
though they are larger than its negative numbers. The boxes of YOLOv3-tiny moved by pixels (1.31)."""


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_session(
    model: str | Path | bytes, threads: int | None = None, providers: Providers | None = None
) -> ort.InferenceSession:
    """Open an ONNX model.

    Args:
        model: The file, or its content.
        threads: Threads within an operator, None for one a core.
        providers: Execution provider of ONNX Runtime, or several in order of preference, None for the CPU; each a name
            or, with options, a pair of name and dictionary.

    Raises:
        IMAError: No such file, not an ONNX file, or a provider that this ONNX Runtime does not have.
    """
    source = "(bytes)" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise IMAError(f"model={source}: no such file")
    wanted = _checked_providers(providers)
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MOST_THREADS):
        raise IMAError(f"threads={threads!r}: expected a whole number from 1 to {MOST_THREADS}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # One plan of all memory in which tensors share nothing by name but each is freed after its last use: 5% faster than
    # the default for yolo26n at 224 to 640 px, and at 640 the process peaks at 152 in place of 189 MB.
    options.enable_mem_reuse = False
    # Threads that wait for the next run would take a core from the picture that is made ready for it: without them the
    # work around a run takes an eighth less at 640 px on two cores, and an idle device idles.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # its warnings concern the graph's author, and errors are raised anyway
    try:
        # Its content, not its name: of a name, older releases (1.19 and 1.20 were seen to) read weights from whatever
        # file the graph points to, outside its folder as well; of a content, 1.31 reads them from the current folder.
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        check_alone(content, source)
        # A second attempt on the CPU follows a provider's failure, but not one on the CPU, which it would announce on
        # the output that belongs to our results.
        settings = {"disabled_optimizers": WRONG, "enable_fallback": int(wanted != [CPU])}
        return ort.InferenceSession(content, options, wanted, **settings)
    except IMAError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise IMAError(f"model={source}: not a loadable ONNX file ({first_line(error)}); export it again") from error


def _checked_providers(providers: Providers | None) -> list[Provider]:
    given: Any = [providers] if isinstance(providers, str) else providers or [CPU]
    if not isinstance(given, (list, tuple)) or not all(map(_is_provider, given)):
        raise IMAError(f"providers={providers}: expected names, such as {CPU}")
    wanted: list[Provider] = list(given)
    names = [item if isinstance(item, str) else item[0] for item in wanted]
    available = ort.get_available_providers()
    if unknown := [name for name in names if name not in available]:
        raise IMAError(f"providers={unknown}: not in this ONNX Runtime, available: {', '.join(available)}")
    return wanted


def _is_provider(item: Any) -> bool:
    is_pair = isinstance(item, (list, tuple)) and len(item) == 2
    return isinstance(item, str) or (is_pair and isinstance(item[0], str) and isinstance(item[1], dict))


def session_metadata(session: ort.InferenceSession, source: str) -> Metadata:
    """Read an open file's Ultralytics metadata.

    Raises:
        IMAError: It is missing or damaged.
    """
    try:
        raw = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise IMAError(f"{source}: its metadata is damaged ({first_line(error)}); export it again") from error
    return parse_metadata(raw, source)


def channels_of(path: Path) -> int:
    """The channels of the pictures that a file takes.

    Raises:
        IMAError: It cannot be opened, or its metadata is missing or damaged.
    """
    return session_metadata(open_session(path), str(path)).channels


def check_shapes(session: ort.InferenceSession, metadata: Metadata, source: str) -> None:
    """Refuse a graph whose input or outputs contradict its metadata, before it fails somewhere inside.

    Raises:
        IMAError: Naming the file, the shape that was found and the one that was expected.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in INPUT_TYPES:
        types = ", ".join(entry.type for entry in inputs)
        raise IMAError(f"{source}: expected one input of float32 or float16, found {types or 'none'}")
    _check_shape(source, "input", inputs[0].shape, (None, metadata.channels, *metadata.imgsz))
    expected = _expected_outputs(metadata, outputs)
    if len(outputs) != len(expected):
        raise IMAError(f"{source}: has {len(outputs)} outputs, a {metadata.task} model has {len(expected)}")
    for output, shape in zip(outputs, expected, strict=True):
        _check_shape(source, "output", output.shape, shape)


def _expected_outputs(metadata: Metadata, outputs: Sequence[ort.NodeArg]) -> list[tuple[int | None, ...]]:
    """Shapes of a graph's outputs, None where they follow from the input."""
    if metadata.kind is GraphKind.DENSE:
        return [(None, *metadata.imgsz)]
    extra = metadata.extra
    if metadata.task == "segment" and len(outputs) == 2 and len(outputs[1].shape) == 4:
        channels = outputs[1].shape[1]  # a mask has as many coefficients as there are prototypes
        extra = channels if isinstance(channels, int) else None
    if metadata.kind is GraphKind.RAW:
        first: tuple[int | None, ...] = (None, None if extra is None else 4 + len(metadata.names) + extra, None)
    else:
        first = (None, None, None if extra is None else 6 + extra)
    return [first, (None, None, None, None)] if metadata.task == "segment" else [first]


def _check_shape(source: str, what: str, shape: list[int | str | None], expected: tuple[int | None, ...]) -> None:
    # A string is a free dimension of a dynamic graph.
    fits = len(shape) == len(expected) and all(
        not isinstance(got, int) or want is None or got == want for got, want in zip(shape, expected, strict=True)
    )
    if not fits:
        raise IMAError(f"{source}: {what} has shape {shape}, its metadata asks for {list(expected)}; export it again")


def first_line(error: Exception) -> str:
    """The part of an exception's text that fits a message of one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
