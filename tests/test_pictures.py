"""The picture of detections side by side: every box in its place and colour, and nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ima_yolo.errors import IMAError
from ima_yolo.pictures import Column, class_colours, ground_truth_column, prediction_column, side_by_side
from ima_yolo.pictures.grid import GAP, HEADER, MARGIN, legend_places
from ima_yolo.pictures.tile import WIDTH, tag_place

NAMES = {0: "cat", 1: "dog"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "one.png"
    path.parent.mkdir()
    Image.new("RGB", (100, 50), (200, 200, 200)).save(path)
    return path


def column(title: str, boxes: list[list[float]], classes: list[int], **kwargs: object) -> Column:
    return Column(title, [np.array(boxes, float).reshape(-1, 4)], [np.array(classes)], NAMES, **kwargs)


def tiles_of(path: Path, columns: int, height: int = WIDTH // 2) -> list[np.ndarray]:
    page, top = np.asarray(Image.open(path)), MARGIN + HEADER
    lefts = [MARGIN + k * (WIDTH + GAP) for k in range(columns)]
    return [page[top : top + height, left : left + WIDTH] for left in lefts]


def has_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (pixels == colour).all(-1)


def test_an_outline_is_drawn_where_the_box_is(image: Path, tmp_path: Path) -> None:
    output = side_by_side([image], [column("A", [[25, 20, 50, 40]], [1])], tmp_path / "out.png")
    (tile,) = tiles_of(output, 1)
    rows, columns = np.nonzero(has_colour(tile[85:], class_colours(NAMES.values())["dog"]))  # below the tag
    # 4 times enlarged: x 100 to 200, y 80 to 160.
    assert (columns.min(), columns.max(), rows.max() + 85) == (100, 200, 160)


def test_columns_differ_where_their_boxes_do_and_nowhere_else(image: Path, tmp_path: Path) -> None:
    both = [[10, 20, 30, 45], [60, 20, 80, 45]]
    columns = [column("A", both, [0, 1]), column("B", both, [0, 1]), column("C", both[:1], [0])]
    first, same, other = tiles_of(side_by_side([image], columns, tmp_path / "out.png"), 3)
    assert (first == same).all()
    changed = np.nonzero((first != other).any(-1))[1]
    assert changed.min() > 230
    assert changed.max() < 330


def test_a_class_has_one_colour_whatever_its_index(image: Path, tmp_path: Path) -> None:
    box = [[25, 20, 50, 40]]
    swapped = Column("B", [np.array(box)], [np.array([0])], {0: "dog", 1: "cat"})
    first, second = tiles_of(side_by_side([image], [column("A", box, [1]), swapped], tmp_path / "out.png"), 2)
    assert (first == second).all()


def test_scores_are_written(image: Path, tmp_path: Path) -> None:
    box = [[25, 20, 50, 40]]
    columns = [column("A", box, [0]), *(column("B", box, [0], scores=[np.array([s])]) for s in (0.5, 0.504, 0.9))]
    without, half, rounded, high = tiles_of(side_by_side([image], columns, tmp_path / "out.png"), 4)
    assert (half == rounded).all()
    assert (half != without).any()
    assert (half != high).any()


@pytest.mark.parametrize("size", [(20, 10), (100, 50), (3000, 1500)])
def test_tiles_have_one_width_whatever_the_image(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", size, (200, 200, 200)).save(path)
    whole = column("A", [[0.25 * size[0], 0.4 * size[1], 0.5 * size[0], 0.8 * size[1]]], [1])
    (tile,) = tiles_of(side_by_side([path], [whole], tmp_path / "out.png"), 1)
    columns = np.nonzero(has_colour(tile[85:], class_colours(NAMES.values())["dog"]))[1]
    assert (columns.min(), columns.max()) == (100, 200)


def test_legend_names_only_classes_that_occur(image: Path, tmp_path: Path) -> None:
    colours = class_colours(NAMES.values())
    page = np.asarray(Image.open(side_by_side([image], [column("A", [[1, 1, 9, 9]], [1])], tmp_path / "out.png")))
    legend = page[MARGIN + HEADER + WIDTH // 2 :]
    assert has_colour(legend, colours["dog"]).any()
    assert not has_colour(legend, colours["cat"]).any()


def test_an_image_without_boxes_is_drawn_as_it_is(image: Path, tmp_path: Path) -> None:
    (tile,) = tiles_of(side_by_side([image], [column("A", [], [])], tmp_path / "out.png"), 1)
    assert (tile == 200).all()


def test_legend_wraps() -> None:
    places = legend_places(["one", "two", "three"], width=100)
    assert [line for _, line, _ in places] == [0, 1, 2]
    assert [x for x, _, _ in places] == [0, 0, 0]


def test_colours_of_many_classes_are_distinct() -> None:
    colours = class_colours(str(k) for k in range(80))
    assert len(set(colours.values())) == 80


def test_tags_keep_inside_the_tile_and_off_each_other() -> None:
    taken: list[tuple[float, float, float, float]] = []
    for _ in range(4):  # four tags at the four corners, above and below
        place = tag_place((30, 60, 190, 120), (60, 17), taken, (200, 200))
        assert place[0] >= 0
        assert place[1] >= 0
        assert place[2] <= 200
        assert place[3] <= 200
        for other in taken:
            assert place[2] <= other[0] or place[0] >= other[2] or place[3] <= other[1] or place[1] >= other[3]
        taken.append(place)
    assert tag_place((0, 0, 300, 300), (60, 17), [], (200, 200))[:2] == (0, 0)


def test_a_column_that_lacks_an_image_is_named(image: Path, tmp_path: Path) -> None:
    with pytest.raises(IMAError, match=r"'short'.*2 images"):
        side_by_side([image, image], [column("short", [], [])], tmp_path / "out.png")
    with pytest.raises(IMAError, match="at least one image"):
        side_by_side([], [column("A", [], [])], tmp_path / "out.png")


def test_a_file_that_is_no_image_is_named_and_nothing_written(tmp_path: Path) -> None:
    import ultralytics.utils.patches  # noqa: F401  (it changes how PIL fails)

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(IMAError, match=r"broken\.png"):
        side_by_side([broken], [column("A", [], [])], tmp_path / "out.png")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.png"]


def test_a_place_that_cannot_be_written_is_named(image: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IMAError, match=r"out\.png: cannot write"):
        side_by_side([image], [column("A", [], [])], tmp_path / "file" / "out.png")


GREEN = class_colours(NAMES.values())["cat"]


def drawn(image: Path, tmp_path: Path, **parts: object) -> np.ndarray:
    """The tile of a column with one object, a cat, in an image of 100 x 50 px; it is enlarged 4 times."""
    whole = Column("A", [np.array([[10.0, 10, 90, 40]])], [np.array([0])], NAMES, **parts)
    return tiles_of(side_by_side([image], [whole], tmp_path / "out.png"), 1)[0]


def test_a_mask_is_filled_and_what_is_outside_is_not(image: Path, tmp_path: Path) -> None:
    triangle = np.array([[20.0, 35], [80, 35], [50, 15]])
    changed = (drawn(image, tmp_path) != drawn(image, tmp_path, masks=[[[triangle]]])).any(-1)
    assert changed[4 * 30, 4 * 50]
    assert not changed[4 * 20, 4 * 25]
    assert not (drawn(image, tmp_path) != drawn(image, tmp_path, masks=[[[]]])).any(), "an object without an outline"


def test_a_turned_box_takes_the_place_of_the_upright_one(image: Path, tmp_path: Path) -> None:
    corners = np.array([[[50.0, 10], [80, 25], [50, 40], [20, 25]]])
    tile = drawn(image, tmp_path, corners=[corners])
    assert has_colour(tile, GREEN)[4 * 32 : 4 * 33, 4 * 60 : 4 * 70].any(), "the edge from (80, 25) to (50, 40)"
    assert has_colour(drawn(image, tmp_path), GREEN)[4 * 25, 4 * 90]
    assert not has_colour(tile, GREEN)[4 * 25, 4 * 88 : 4 * 92].any(), "the right edge of the upright box"


def test_keypoints_that_are_seen_are_drawn(image: Path, tmp_path: Path) -> None:
    points = np.array([[[30.0, 30, 0.9], [60, 30, 0.1]]])
    tile = drawn(image, tmp_path, keypoints=[points])
    assert tuple(tile[120, 120]) == GREEN
    assert tuple(tile[120, 240]) == (200, 200, 200)
    flat = drawn(image, tmp_path, keypoints=[points[..., :2]])
    assert tuple(flat[120, 240]) == GREEN, "without a visibility all are drawn"


def test_pixels_are_tinted_by_class_and_unknown_ones_are_not(image: Path, tmp_path: Path) -> None:
    classes = np.full((50, 100), 255, np.uint8)
    classes[:, :30] = 1
    column = Column("A", [np.zeros((0, 4))], [np.zeros(0)], NAMES, pixels=[classes])
    path = side_by_side([image], [column], tmp_path / "out.png")
    (tile,) = tiles_of(path, 1)
    dog = class_colours(NAMES.values())["dog"]
    assert (tile[:, :100] != 200).any(-1).all()
    assert (tile[:, 140:] == 200).all()
    legend = np.asarray(Image.open(path))[MARGIN + HEADER + WIDTH // 2 :]
    assert has_colour(legend, dog).any()
    assert not has_colour(legend, GREEN).any()


def labelled(image: Path, tmp_path: Path, text: str) -> Path:
    (tmp_path / "labels").mkdir(exist_ok=True)
    (tmp_path / "labels" / "one.txt").write_text(text)
    return image


def test_ground_truth_is_read_from_the_label_files(image: Path, tmp_path: Path) -> None:
    # A box of 20 x 20 px around (30, 20).
    labelled(image, tmp_path, "1 0.3 0.4 0.2 0.4\n")
    bare = image.with_name("bare.png")
    Image.new("RGB", (10, 10)).save(bare)
    truth = ground_truth_column([image, bare], {"names": NAMES})
    np.testing.assert_allclose(truth.boxes[0], [[20, 10, 40, 30]], atol=1e-5)
    assert truth.classes[0].tolist() == [1]
    assert truth.boxes[1].shape == (0, 4)
    assert truth.scores is None


def test_ground_truth_of_masks_and_turned_boxes(image: Path, tmp_path: Path) -> None:
    # A square turned by 45 degrees, whose box is x 20 to 80, y 5 to 45.
    labelled(image, tmp_path, "0 0.5 0.1 0.8 0.5 0.5 0.9 0.2 0.5\n")
    corners = [[50, 5], [80, 25], [50, 45], [20, 25]]
    for task in ("detect", "segment", "obb"):
        truth = ground_truth_column([image], {"names": NAMES}, task=task)
        np.testing.assert_allclose(truth.boxes[0], [[20, 5, 80, 45]], atol=1e-5)
        assert (truth.masks is not None, truth.corners is not None) == (task == "segment", task == "obb")
    np.testing.assert_allclose(truth.corners[0][0], corners, atol=1e-5)
    masks = ground_truth_column([image], {"names": NAMES}, task="segment").masks
    np.testing.assert_allclose(masks[0][0][0], corners, atol=1e-5)


def test_ground_truth_of_keypoints(image: Path, tmp_path: Path) -> None:
    labelled(image, tmp_path, "0 0.3 0.4 0.2 0.4 0.25 0.5 2 0 0 0\n")
    bare = image.with_name("bare.png")
    Image.new("RGB", (10, 10)).save(bare)
    truth = ground_truth_column([image, bare], {"names": NAMES, "kpt_shape": [2, 3]}, task="pose")
    np.testing.assert_allclose(truth.keypoints[0], [[[25, 25, 2], [0, 0, 0]]], atol=1e-5)
    assert truth.keypoints[1].shape == (0, 2, 3)


def test_ground_truth_of_pixels(image: Path, tmp_path: Path) -> None:
    raw = np.zeros((50, 100), np.uint8)
    raw[:, 50:], raw[40:] = 7, 9
    (tmp_path / "masks").mkdir()
    Image.fromarray(raw).save(tmp_path / "masks" / "one.png")
    bare = image.with_name("bare.png")
    Image.new("RGB", (10, 8)).save(bare)
    mapping = {7: 1, 9: "ignore_label"}
    data = {"names": NAMES, "masks_dir": "masks", "label_mapping": mapping}
    truth = ground_truth_column([image, bare], data, task="semantic")
    assert [truth.pixels[0][row, column] for row, column in ((0, 0), (0, 60), (45, 0))] == [0, 1, 255]
    assert truth.pixels[1].shape == (8, 10)
    assert (truth.pixels[1] == 255).all()


def test_predictions_are_those_of_the_model(tiny_data: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    from ultralytics import YOLO

    images = sorted((tiny_data.parent / "images" / "val").glob("*.png"))[:2]
    checkpoint = tiny_checkpoint("yolo26n.yaml")
    found = prediction_column("Student", checkpoint, images, imgsz=96, conf=1e-5)
    assert found.names == {0: "disc", 1: "square", 2: "triangle"}
    for path, boxes, classes, scores in zip(images, found.boxes, found.classes, found.scores or [], strict=True):
        expected = YOLO(checkpoint).predict(path, imgsz=96, conf=1e-5, device="cpu", verbose=False)[0].boxes
        assert len(expected) > 0
        np.testing.assert_allclose(boxes, expected.xyxy.numpy(), atol=1e-3)
        np.testing.assert_allclose(scores, expected.conf.numpy(), atol=1e-6)
        assert classes.tolist() == expected.cls.tolist()


@pytest.mark.parametrize(
    ("model", "part", "shape"),
    [("seg", "masks", ()), ("pose", "keypoints", (17, 3)), ("obb", "corners", (4, 2)), ("sem", "pixels", ())],
)
def test_predictions_of_every_task_are_drawn(
    model: str,
    part: str,
    shape: tuple[int, ...],
    tiny_data: Path,
    tiny_checkpoint: Callable[..., Path],
    lively: Callable[[Path, Path], Path],
    tmp_path: Path,
) -> None:
    images = sorted((tiny_data.parent / "images" / "val").glob("*.png"))
    checkpoint = lively(tiny_checkpoint(f"yolo26n-{model}.yaml"), tmp_path / "lively.pt")
    found = prediction_column("Student", checkpoint, images, imgsz=96, conf=1e-9)
    parts = {name: getattr(found, name) for name in ("masks", "keypoints", "corners", "pixels")}
    assert [name for name, value in parts.items() if value is not None] == [part]
    for index in range(len(images)):
        if part == "pixels":
            assert parts[part][index].shape == (96, 96)
        else:
            assert len(found.boxes[index]) == len(parts[part][index])
        if shape:
            assert parts[part][index].shape[1:] == shape
    assert part == "pixels" or sum(map(len, found.boxes)) > 0
    side_by_side(images, [found], tmp_path / "out.png")


def test_confidence_threshold_counts(tiny_data: Path, tiny_checkpoint: Callable[..., Path]) -> None:
    images = sorted((tiny_data.parent / "images" / "val").glob("*.png"))[:1]
    assert len(prediction_column("Student", tiny_checkpoint("yolo26n.yaml"), images, imgsz=96, conf=0.99).boxes[0]) == 0
