"""Run an exported detector with numpy, OpenCV and ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ima_yolo.errors import IMAError

from .metadata import GraphKind, Metadata, parse_metadata
from .postprocess import Thresholds, decoder_for
from .preprocess import Letterbox, as_bgr
from .results import Detections

INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def open_session(
    model: str | Path | bytes, threads: int | None = None, providers: Sequence[str] | None = None
) -> ort.InferenceSession:
    """Open an ONNX model.

    Args:
        model: The file, or its content.
        threads: Threads within an operator, None for one a core.
        providers: Execution providers of ONNX Runtime in order of preference, None for the CPU.

    Raises:
        IMAError: No such file, not an ONNX file, or a provider that this ONNX Runtime does not have.
    """
    source = "(bytes)" if isinstance(model, bytes) else str(model)
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise IMAError(f"model={source}: no such file")
    available = ort.get_available_providers()
    unknown = [name for name in providers or () if name not in available]
    if unknown:
        raise IMAError(f"providers={unknown}: not in this ONNX Runtime, available: {', '.join(available)}")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise IMAError(f"threads={threads!r}: expected a whole number above 0")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # its warnings concern the graph's author, and errors are raised anyway
    content = model if isinstance(model, bytes) else source
    try:
        return ort.InferenceSession(content, options, providers=list(providers or ["CPUExecutionProvider"]))
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise IMAError(f"model={source}: not a loadable ONNX file ({first_line(error)}); export it again") from error


def session_metadata(session: ort.InferenceSession, source: str) -> Metadata:
    """Read an open file's Ultralytics metadata.

    Raises:
        IMAError: It is missing or damaged.
    """
    return parse_metadata(session.get_modelmeta().custom_metadata_map, source)


class Detector:
    """A detection model in an ONNX file. One object may be used by several threads.

    Example:
        >>> detections = Detector("best.onnx")(cv2.imread("cells.jpg"))  # doctest: +SKIP
    """

    def __init__(self, path: str | Path, threads: int | None = None, providers: Sequence[str] | None = None) -> None:
        """Open the file and choose how to read its outputs.

        Args:
            path: An ONNX file exported from Ultralytics, of task detect: raw, NMS-free or with embedded NMS.
            threads: Threads within an operator, None for one a core.
            providers: Execution providers of ONNX Runtime in order of preference, None for the CPU.

        Raises:
            IMAError: The file is missing, damaged, without metadata, or of a task or shape that is not supported.
        """
        self.path = Path(path)
        self.session = open_session(path, threads, providers)
        self.metadata = session_metadata(self.session, str(path))
        self._decode = decoder_for(self.metadata, str(path))
        self._input = self.session.get_inputs()[0]
        self._check_shapes()
        self._input_type = INPUT_TYPES[self._input.type]

    def __call__(
        self,
        image: np.ndarray,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        agnostic_nms: bool = False,
        classes: Sequence[int] | None = None,
    ) -> Detections:
        """Detect in one picture.

        Args:
            image: (H, W, 3) BGR uint8 as `cv2.imread` gives it; grey, BGRA and uint16 are taken too.
            conf: Scores must be above it, 0 to 1.
            iou: Overlap in NMS above which the lower score goes, 0 to 1; only raw graphs need NMS.
            max_det: Detections kept at most.
            agnostic_nms: Whether boxes of different classes suppress each other; only raw graphs need NMS.
            classes: Class indices to keep, None for all.

        Raises:
            IMAError: The array is no picture, or a threshold is out of range.
        """
        return self.detect(image, Thresholds(conf, iou, max_det, agnostic_nms, classes))

    def detect(self, image: np.ndarray, thresholds: Thresholds) -> Detections:
        """As calling the object, with the thresholds made and checked once for many pictures."""
        self.check_classes(thresholds)
        image = as_bgr(image)
        shape = (image.shape[0], image.shape[1])
        place = Letterbox.fit(shape, self.metadata.imgsz)
        blob = place.blob(image).astype(self._input_type, copy=False)
        try:
            outputs = self.session.run(None, {self._input.name: blob})
        except Exception as error:  # as in open_session
            raise IMAError(f"{self.path}: ONNX Runtime could not run it ({first_line(error)})") from error
        boxes, scores, classes = self._decode(outputs, thresholds)
        return Detections(place.to_image(boxes), scores, classes, self.metadata.names, shape)

    def check_classes(self, thresholds: Thresholds) -> None:
        """Refuse class indices that the model does not have.

        Raises:
            IMAError: Naming them.
        """
        unknown = [index for index in thresholds.classes or () if index not in self.metadata.names]
        if unknown:
            raise IMAError(f"classes={unknown}: not in {self.path}, which has 0 to {len(self.metadata.names) - 1}")

    def _check_shapes(self) -> None:
        """Refuse a graph whose input or output contradicts its metadata, before it fails somewhere inside."""
        meta, outputs = self.metadata, self.session.get_outputs()
        if self._input.type not in INPUT_TYPES or len(self.session.get_inputs()) != 1:
            raise IMAError(f"{self.path}: expected one input of float32 or float16, found {self._input.type}")
        if meta.channels != 3:
            raise IMAError(f"{self.path}: made for {meta.channels} channels, this runtime reads colour pictures (3)")
        raw = meta.kind is GraphKind.RAW
        self._check_shape("input", self._input.shape, (1, 3, *meta.imgsz))
        self._check_shape("output", outputs[0].shape, (1, 4 + len(meta.names), None) if raw else (1, None, 6))

    def _check_shape(self, what: str, shape: list[int | str | None], expected: tuple[int | None, ...]) -> None:
        # A string is a free dimension of a dynamic graph.
        fits = len(shape) == len(expected) and all(
            not isinstance(got, int) or want is None or got == want for got, want in zip(shape, expected, strict=True)
        )
        if not fits:
            hint = "; export with batch=1" if shape and shape[0] != 1 else ""
            raise IMAError(f"{self.path}: {what} has shape {shape}, its metadata asks for {list(expected)}{hint}")


def first_line(error: Exception) -> str:
    """The part of an exception's text that fits a message of one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
