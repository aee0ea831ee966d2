"""Run an exported model with numpy, OpenCV and ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from ima_yolo.errors import IMAError

from .masks import decode_masks
from .metadata import GraphKind, Metadata
from .postprocess import Rows, Thresholds, decoder_for
from .preprocess import InputBuffer, Letterbox, as_input
from .results import ClassMap, Detections, Result
from .rotated import enclosing
from .session import CPU, INPUT_TYPES, Providers, check_shapes, cores, first_line, open_session, session_metadata
from .team import Team

TASKS = ("detect", "segment", "pose", "obb", "semantic")


class Detector:
    """A model in an ONNX file exported from Ultralytics. One object may be used by several threads.

    Tasks detect, segment, pose, obb and semantic; graphs with raw outputs, without NMS, with NMS inside, and RT-DETR:
    which of them a file is, its metadata tells.

    Example:
        >>> detections = Detector("best.onnx")(cv2.imread("cells.jpg"))  # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        providers: Providers | None = None,
        imgsz: int | Sequence[int] | None = None,
    ) -> None:
        """Open the file and choose how to read its outputs.

        Args:
            path: An ONNX file exported from Ultralytics.
            threads: Threads within an operator, None for one a core.
            providers: Execution provider of ONNX Runtime, or several in order of preference, None for the CPU; each a
                name or, with options, a pair of name and dictionary.
            imgsz: Side, or height and width, of the network input in pixels, for files exported with dynamic=True;
                None for what the file was exported with.

        Raises:
            IMAError: The file is missing, damaged, without metadata, or of a task or shape that is not supported.
        """
        self.path = Path(path)
        self.session = open_session(path, threads, providers)
        self.metadata = session_metadata(self.session, str(path))
        if self.metadata.task not in TASKS:
            raise IMAError(f"{path}: task {self.metadata.task!r} is not supported, supported tasks: {', '.join(TASKS)}")
        check_shapes(self.session, self.metadata, str(path))
        entry = self.session.get_inputs()[0]
        self._input, self._input_type = entry.name, INPUT_TYPES[entry.type]
        self._free_size = not all(isinstance(side, int) for side in entry.shape[2:])
        fixed = self.metadata.batch if self.metadata.kind is GraphKind.NMS_EMBEDDED else None
        self._batch: int | None = entry.shape[0] if isinstance(entry.shape[0], int) else fixed
        self.imgsz = self._size(imgsz)
        self._decode = decoder_for(self.metadata)
        self._buffer = InputBuffer(self.metadata.channels)
        on_cpu = self.session.get_providers()[0] == CPU
        self._team = Team(self.path, (threads or cores()) if on_cpu else 1)

    def __call__(
        self,
        image: np.ndarray,
        conf: float = 0.25,
        iou: float = 0.7,
        max_det: int = 300,
        agnostic_nms: bool = False,
        classes: Sequence[int] | None = None,
    ) -> Result:
        """Look into one picture.

        Args:
            image: (H, W, 3) BGR uint8 as `cv2.imread` gives it; grey, BGRA and uint16 are taken too. For a model of
                other than one or three channels (H, W, C), as `cv2.IMREAD_UNCHANGED` gives it.
            conf: Scores must be above it, 0 to 1.
            iou: Overlap in NMS above which the lower score goes, 0 to 1; only raw graphs need NMS.
            max_det: Detections kept at most.
            agnostic_nms: Whether boxes of different classes suppress each other; only raw graphs need NMS.
            classes: Class indices to keep, None for all.

        Returns:
            `Detections`, or `ClassMap` of a semantic model.

        Raises:
            IMAError: The array is no picture, or a threshold is out of range.
        """
        return self.detect([image], Thresholds(conf, iou, max_det, agnostic_nms, classes))[0]

    def detect(self, images: Sequence[np.ndarray] | np.ndarray, thresholds: Thresholds | None = None) -> list[Result]:
        """Look into several pictures, together in one run as far as the graph takes batches.

        Where that takes several runs and there are several threads, each thread makes runs of its own: a sixth more
        pictures a second on two cores than with all threads in one run after the other, and the work around the runs
        is shared too. The first such call opens the file a second time.

        Args:
            images: A list, or an array (B, H, W, C), of what calling the object takes.
            thresholds: What is kept; the defaults of calling the object if None.

        Returns:
            One result a picture.

        Raises:
            IMAError: An array is no picture, or a class index is not the model's.
        """
        if isinstance(images, np.ndarray) and images.ndim != 4:  # its rows would be taken for grey pictures
            raise IMAError(f"images has shape {images.shape}, expected a list of pictures; a single one as [image]")
        thresholds = thresholds or Thresholds()
        self.check_classes(thresholds)
        pictures = [as_input(image, self.metadata.channels) for image in images]
        size = self._batch or max(len(pictures), 1)
        chunks = [pictures[start : start + size] for start in range(0, len(pictures), size)]
        done = self._team.map(lambda chunk, session: self._run(chunk, thresholds, session), chunks)
        done += [self._run(chunk, thresholds, self.session) for chunk in chunks[len(done) :]]
        return [result for results in done for result in results]

    def prepare(self, pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, list[Letterbox]]:
        """Paint at most one batch of (H, W, C) uint8 pictures, as `as_input` gives them, into the network input.

        Returns:
            The input, (B, C, H, W), which the next call of this thread overwrites, and where each picture lies in it.

        Raises:
            IMAError: The input is larger than the memory.
        """
        places = self._places([(picture.shape[0], picture.shape[1]) for picture in pictures])
        batch = self._batch or len(pictures)
        try:
            blob = self._buffer.fill(pictures, places, batch)
        except (MemoryError, ValueError) as error:  # more bytes than there are, or than a number of bytes can be
            shape = [batch, self.metadata.channels, *places[0].target]
            raise IMAError(f"{self.path}: an input of {shape} does not fit the memory") from error
        return blob.astype(self._input_type, copy=False), places

    def infer(self, blob: np.ndarray, session: ort.InferenceSession | None = None) -> list[np.ndarray]:
        """Run the graph, in another session of the same file if one is given.

        Raises:
            IMAError: ONNX Runtime could not.
        """
        try:
            return (session or self.session).run(None, {self._input: blob})
        except Exception as error:  # as in open_session
            raise IMAError(f"{self.path}: ONNX Runtime could not run it ({first_line(error)})") from error

    def read(self, outputs: Sequence[np.ndarray], places: Sequence[Letterbox], thresholds: Thresholds) -> list[Result]:
        """Turn the graph's outputs into results, one a place.

        Raises:
            IMAError: A detection holds a number that is none, as of a damaged file or one that overflows in float16.
        """
        if self.metadata.kind is GraphKind.DENSE:
            return [_class_map(outputs[0][i], place, self.metadata, thresholds) for i, place in enumerate(places)]
        results: list[Result] = []
        for index, place in enumerate(places):
            protos = outputs[1][index] if self.metadata.task == "segment" else None
            rows = self._decode(outputs[0][index], thresholds)
            if not all(np.isfinite(part).all() for part in (rows.boxes, rows.scores, rows.extra)):
                raise IMAError(
                    f"{self.path}: gave a detection with NaN or infinite numbers; export it again, in float32"
                )
            results.append(_detections(rows, protos, place, self.metadata))
        return results

    def check_classes(self, thresholds: Thresholds) -> None:
        """Refuse class indices that the model does not have.

        Raises:
            IMAError: Naming them.
        """
        unknown = [index for index in thresholds.classes or () if index not in self.metadata.names]
        if unknown:
            raise IMAError(f"classes={unknown}: not in {self.path}, which has 0 to {len(self.metadata.names) - 1}")

    def _run(
        self, pictures: Sequence[np.ndarray], thresholds: Thresholds, session: ort.InferenceSession
    ) -> list[Result]:
        blob, places = self.prepare(pictures)
        return self.read(self.infer(blob, session), places, thresholds)

    def _places(self, shapes: Sequence[tuple[int, int]]) -> list[Letterbox]:
        """Where pictures of these shapes lie in the network input, as in Ultralytics' predictor."""
        if self.metadata.kind is GraphKind.QUERIES:
            return [Letterbox.stretch(shape, self.imgsz) for shape in shapes]
        alike = len(set(shapes)) == 1
        stride = self.metadata.stride if self._free_size and alike else None
        return [Letterbox.fit(shape, self.imgsz, stride) for shape in shapes]

    def _size(self, asked: int | Sequence[int] | None) -> tuple[int, int]:
        """The size of the network input.

        Raises:
            IMAError: One is asked for that the graph or its stride does not allow.
        """
        if asked is None:
            return self.metadata.imgsz
        given: tuple[Any, ...] = tuple(asked) if isinstance(asked, Sequence) else (asked,)
        sides = tuple(int(side) if isinstance(side, np.integer) else side for side in given)
        sides = sides * 2 if len(sides) == 1 else sides
        stride = self.metadata.stride
        if len(sides) != 2 or not all(type(side) is int and side > 0 and side % stride == 0 for side in sides):
            example = -(-max(1, asked) // stride) * stride if isinstance(asked, int) else 20 * stride
            text = f"expected a multiple of {stride} such as {example}, or [height, width] of such"
            raise IMAError(f"imgsz={asked!r}: {text}")
        if not self._free_size and sides != self.metadata.imgsz:
            fixed = list(self.metadata.imgsz)
            raise IMAError(
                f"imgsz={asked!r}: {self.path} is fixed to {fixed}; leave imgsz= out, or export it again with "
                f"imgsz={asked!r} or with dynamic=True"
            )
        return sides[0], sides[1]


def _detections(rows: Rows, protos: np.ndarray | None, place: Letterbox, metadata: Metadata) -> Detections:
    """Bring rows of any task to the picture's pixels."""
    common = (metadata.names, place.image_shape)
    if metadata.kind is GraphKind.QUERIES:  # shares of the picture
        height, width = place.image_shape
        boxes = rows.boxes * np.array([width, height] * 2, np.float32)
        return Detections(boxes, rows.scores, rows.classes, *common)
    if metadata.task == "obb":
        rotated = place.rotated_to_image(np.concatenate([rows.boxes, rows.extra[:, -1:]], axis=1))
        return Detections(enclosing(rotated), rows.scores, rows.classes, *common, rotated=rotated)
    masks = keypoints = None
    if metadata.kpt_shape is not None:
        keypoints = rows.extra.reshape(-1, *metadata.kpt_shape)  # (N, K * D) -> (N, K, D)
        keypoints[..., :2] = place.points_to_image(keypoints[..., :2])
    if protos is not None:
        masks = decode_masks(protos, rows.extra, rows.boxes, place)
        kept = np.array([index for index, patch in enumerate(masks.patches) if patch.any()], np.intp)
        rows, masks = rows.take(kept), masks.take(kept)  # as in Ultralytics, what has no pixel is no object
    return Detections(place.to_image(rows.boxes), rows.scores, rows.classes, *common, masks, keypoints)


def _class_map(output: np.ndarray, place: Letterbox, metadata: Metadata, thresholds: Thresholds) -> ClassMap:
    """Cut the padding off a class map, (h, w) in network pixels, and bring it to the picture's size, nearest pixel."""
    window = output[place.window]
    height, width = place.image_shape
    rows = _nearest(height, window.shape[0])
    classes = window[rows][:, _nearest(width, window.shape[1])]
    if thresholds.classes is not None and len(metadata.names) > 1:
        classes[~np.isin(classes, np.asarray(thresholds.classes))] = 255
    return ClassMap(classes, metadata.names, place.image_shape)


def _nearest(count: int, available: int) -> np.ndarray:
    """Indices that enlarge or shrink an axis of `available` to `count`, with torch's rounding."""
    scaled = np.arange(count, dtype=np.float32) * np.float32(np.float32(available) / np.float32(count))
    return np.minimum(scaled.astype(np.intp), available - 1)
