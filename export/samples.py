"""Pictures for measuring where the user names none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .sources import READ_AS

SIZES = ((480, 640), (720, 1280), (1080, 810))
"""Heights and widths in pixels."""


def sample_images(folder: Path, channels: int = 3) -> list[Path]:
    """Draw scenes of discs on a smooth ground and write them to `folder`; the same ones every time.

    Args:
        folder: Where they go.
        channels: Of the model that they are for; of other than one or three they are TIFFs with a page for each.
    """
    rng, paths = np.random.default_rng(0), []
    for height, width in SIZES:
        ground = rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)
        image = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(12):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            colour = [int(value) for value in rng.integers(0, 256, 3)]
            cv2.circle(image, centre, int(rng.integers(10, height // 6)), colour, cv2.FILLED, cv2.LINE_AA)
        paths.append(folder / f"sample_{width}x{height}{'.jpg' if channels in READ_AS else '.tiff'}")
        if channels in READ_AS:
            cv2.imencode(".jpg", image)[1].tofile(paths[-1])
        else:
            cv2.imwritemulti(str(paths[-1]), [*np.moveaxis(in_bands(image, channels), 2, 0)])
    return paths


def in_bands(image: np.ndarray, channels: int) -> np.ndarray:
    """Spread a picture, (H, W, 3) BGR uint8, over other channels, (H, W, `channels`), evenly from blue to red."""
    places = np.linspace(0, 2, channels)
    left = np.minimum(places.astype(int), 1)
    share = (places - left).astype(np.float32)
    return (image[..., left] * (1 - share) + image[..., left + 1] * share).round().astype(np.uint8)
