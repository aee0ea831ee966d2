"""The letterbox against numbers worked out by hand and against Ultralytics' own."""

from __future__ import annotations

import numpy as np
import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export.preprocess import Letterbox, as_input


@pytest.mark.parametrize(
    ("shape", "target", "width", "height", "left", "top"),
    [
        # 640x480 into 640x640: factor 1, 160 spare rows, 80 above.
        ((480, 640), (640, 640), 640, 480, 0, 80),
        # 810x1080 into 640x640: factor 0.5926 -> 480 wide, 160 spare columns.
        ((1080, 810), (640, 640), 480, 640, 80, 0),
        # 416x312 into 224x224: factor 0.5385 -> 168 high, 56 spare rows.
        ((312, 416), (224, 224), 224, 168, 0, 28),
        # 100x50 into 64x64: factor 0.64, enlarging never needed; 32 high, 16 above.
        ((50, 100), (64, 64), 64, 32, 0, 16),
        # 20x10 into 64x64: enlarged 3.2 times.
        ((10, 20), (64, 64), 64, 32, 0, 16),
        # 64x33: 31 spare rows, 15.5 a side: 15 above (round(15.4)), 16 below.
        ((33, 64), (64, 64), 64, 33, 0, 15),
        # 3000x1: 64 / 3000 of one row rounds to 0 but stays one row.
        ((1, 3000), (64, 64), 64, 1, 0, 31),
        # 25 * 0.02 = 0.5 and Python rounds halves to even: 0, kept at 1.
        ((25, 3200), (64, 64), 64, 1, 0, 31),
        # A target that is not square.
        ((100, 100), (32, 64), 32, 32, 16, 0),
    ],
)
def test_placement_by_hand(
    shape: tuple[int, int], target: tuple[int, int], width: int, height: int, left: int, top: int
) -> None:
    place = Letterbox.fit(shape, target)
    assert (place.width, place.height, place.left, place.top) == (width, height, left, top)


def test_blob_is_rgb_planes_in_0_to_1_on_grey() -> None:
    image = np.zeros((2, 4, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 255, 51, 0  # blue, green, red
    blob = Letterbox.fit((2, 4), (4, 4)).blob(image)
    assert blob.shape == (1, 3, 4, 4)
    assert blob.dtype == np.float32
    np.testing.assert_allclose(blob[0, :, 1, 0], [0, 0.2, 1])
    np.testing.assert_allclose(blob[0, :, 0, 0], 114 / 255)
    np.testing.assert_allclose(blob[0, :, 3, 3], 114 / 255)


@pytest.mark.parametrize("shape", [(37, 91), (480, 640), (1080, 810), (20, 15), (64, 64), (333, 7), (1, 3000)])
@pytest.mark.parametrize("target", [(64, 64), (96, 160), (224, 224)])
def test_blob_equals_ultralytics(shape: tuple[int, int], target: tuple[int, int]) -> None:
    import torch
    from ultralytics.data.augment import LetterBox

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    theirs = torch.from_numpy(LetterBox(target, auto=False)(image=image).copy()).permute(2, 0, 1).flip(0).float() / 255
    np.testing.assert_array_equal(Letterbox.fit(shape, target).blob(image)[0], theirs.numpy())


@pytest.mark.parametrize("shape", [(37, 91), (480, 640), (1080, 810), (20, 15), (333, 7)])
def test_boxes_go_back_as_in_ultralytics(shape: tuple[int, int]) -> None:
    from ultralytics.utils.ops import scale_boxes

    boxes = np.random.default_rng(0).uniform(-20, 250, (50, 4)).astype(np.float32)
    ours = Letterbox.fit(shape, (224, 224)).to_image(boxes)
    np.testing.assert_allclose(ours, scale_boxes((224, 224), boxes.copy(), shape), rtol=0, atol=1e-4)


def test_boxes_go_back_and_are_clipped_by_hand() -> None:
    place = Letterbox.fit((50, 100), (64, 64))  # factor 0.64, 16 rows above
    boxes = np.array([[6.4, 22.4, 32, 48], [-5, 0, 70, 64]], np.float32)
    np.testing.assert_allclose(place.to_image(boxes), [[10, 10, 50, 50], [0, 0, 100, 50]], atol=1e-4)


def test_grey_alpha_and_16_bits_become_bgr() -> None:
    grey = np.full((3, 5), 7, np.uint8)
    assert as_input(grey).shape == (3, 5, 3)
    assert (as_input(grey[..., None]) == 7).all()
    bgra = np.dstack([grey, grey + 1, grey + 2, np.zeros_like(grey)])
    np.testing.assert_array_equal(as_input(bgra)[0, 0], [7, 8, 9])
    deep = np.array([[[0x0102, 0xFF80, 0x00FF]]], np.uint16)
    np.testing.assert_array_equal(as_input(deep)[0, 0], [0x01, 0xFF, 0x00])


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8), "a.jpg"],
)
def test_what_is_no_picture_is_refused(image: object) -> None:
    with pytest.raises(IMAError, match=r"^image (is|has) "):
        as_input(image)
