"""Results drawn into pictures with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .preprocess import as_input

GOLDEN_RATIO = 0.61803398875
OPACITY = 0.4
"""Share of a mask's colour in the drawn pixel."""

VISIBLE = 0.5
"""Keypoints less certain than this are left out."""


def as_shown(image: np.ndarray) -> np.ndarray:
    """Bring an array that a `Detector` takes to (H, W, 3) BGR uint8, to be drawn on.

    Grey is repeated; of more than three channels the first three are shown, and two get an empty third, as in
    Ultralytics' pictures.

    Raises:
        IMAError: The array is no picture.
    """
    count = image.shape[2] if isinstance(image, np.ndarray) and image.ndim == 3 else 1
    image = as_input(image, 3 if count in (1, 3) else count)
    if count == 2:
        return np.dstack([image, np.zeros_like(image[..., :1])])
    return np.ascontiguousarray(image[..., :3])


def paint_boxes(
    image: np.ndarray,
    outlines: np.ndarray,
    classes: Sequence[int],
    texts: Sequence[str],
    polygons: Sequence[Sequence[np.ndarray]] | None = None,
    keypoints: np.ndarray | None = None,
) -> np.ndarray:
    """Draw objects, the best last and so on top.

    Args:
        image: (H, W, 3) BGR uint8; it is not changed.
        outlines: (N, 4) xyxy, or (N, 4, 2) corners, in pixels.
        classes: N class indices, which choose the colours.
        texts: N labels.
        polygons: Outlines of N masks.
        keypoints: (N, K, 2 or 3) x, y, visibility.

    Returns:
        A drawn copy.
    """
    canvas = image.copy()
    line = max(round(sum(image.shape[:2]) / 2 * 0.003), 1)
    if polygons is not None:
        _tint(canvas, polygons, classes)
    for index in reversed(range(len(outlines))):
        colour, outline = colour_of(classes[index]), outlines[index].round().astype(int)
        if outline.ndim == 1:
            (x1, y1, x2, y2), at = outline.tolist(), outline[:2]
            cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA)
        else:
            cv2.polylines(canvas, [outline.astype(np.int32)], True, colour, line, cv2.LINE_AA)
            at = outline[outline[:, 1].argmin()]
        for point in () if keypoints is None else keypoints[index]:
            if len(point) == 2 or point[2] >= VISIBLE:
                cv2.circle(canvas, (round(point[0]), round(point[1])), line + 1, colour, cv2.FILLED, cv2.LINE_AA)
        _write(canvas, texts[index], (int(at[0]), int(at[1])), colour, line)
    return canvas


def paint_classes(image: np.ndarray, classes: np.ndarray, shown: Sequence[int]) -> np.ndarray:
    """Tint pixels by class, (H, W) indices, in a copy of `image`; only those in `shown`."""
    canvas = image.copy()
    for index in shown:
        chosen = classes == index
        canvas[chosen] = ((1 - OPACITY) * canvas[chosen] + OPACITY * np.array(colour_of(index))).astype(np.uint8)
    return canvas


def colour_of(index: int) -> tuple[int, int, int]:
    """A bright BGR colour; steps of the golden ratio keep neighbouring classes far apart on the colour circle."""
    hue = round(index * GOLDEN_RATIO % 1 * 179)
    pixel = cv2.cvtColor(np.array([[[hue, 220, 220]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def _tint(canvas: np.ndarray, polygons: Sequence[Sequence[np.ndarray]], classes: Sequence[int]) -> None:
    """Blend filled masks into the canvas."""
    filled = canvas.copy()
    for index in reversed(range(len(polygons))):
        whole = [line.round().astype(np.int32) for line in polygons[index]]
        if whole:
            cv2.fillPoly(filled, whole, colour_of(classes[index]))
    cv2.addWeighted(filled, OPACITY, canvas, 1 - OPACITY, 0, dst=canvas)


def _write(canvas: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, int, int], line: int) -> None:
    """Write on a filled tab above `corner`, or below it where the picture ends."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.2 + line / 6
    (width, height), _ = cv2.getTextSize(text, font, scale, 1)
    x = max(min(corner[0], canvas.shape[1] - width), 0)
    bottom = corner[1] if corner[1] - height >= 4 else corner[1] + height + 4
    cv2.rectangle(canvas, (x, bottom - height - 4), (x + width, bottom), colour, cv2.FILLED)
    dark = sum(colour) < 384
    cv2.putText(canvas, text, (x, bottom - 2), font, scale, (255,) * 3 if dark else (0,) * 3, 1, cv2.LINE_AA)
