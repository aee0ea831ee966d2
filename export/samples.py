"""Pictures for measuring where the user names none."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZES = ((480, 640), (720, 1280), (1080, 810))
"""Heights and widths in pixels."""


def sample_images(folder: Path) -> list[Path]:
    """Draw scenes of discs on a smooth ground and write them to `folder`; the same ones every time."""
    rng, paths = np.random.default_rng(0), []
    for height, width in SIZES:
        ground = rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)
        image = cv2.resize(ground, (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(12):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            colour = [int(value) for value in rng.integers(0, 256, 3)]
            cv2.circle(image, centre, int(rng.integers(10, height // 6)), colour, cv2.FILLED, cv2.LINE_AA)
        paths.append(folder / f"sample_{width}x{height}.jpg")
        cv2.imencode(".jpg", image)[1].tofile(paths[-1])
    return paths
