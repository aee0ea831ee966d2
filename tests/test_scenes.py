"""The demo's drawn set: the same bits from the same seed, boxes around what can be seen, every kind in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from ima_yolo.demo.scenes import (
    SUPERSAMPLE,
    Item,
    _photograph,
    compose,
    draw_scene,
    draw_set,
    scene_generator,
    visible_boxes,
)
from ima_yolo.demo.sprites import NAMES, Sprite, draw_distractor, draw_sprite
from ima_yolo.errors import IMAError

IMGSZ = 96


def block(height: int, width: int, x: int, y: int, label: int | None = 0, colour: float = 1.0) -> Item:
    return Item(Sprite(np.full((height, width, 3), colour, np.float32), np.ones((height, width), bool)), (x, y), label)


def boxes_of(*items: Item, side: int = 100) -> tuple[list[list[float]], list[int]]:
    _, owner = compose(np.zeros((side, side, 3), np.float32), items)
    boxes, classes = visible_boxes(owner, items)
    return boxes.tolist(), classes.tolist()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_box_of_a_lone_thing_is_its_extent() -> None:
    assert boxes_of(block(20, 10, 30, 40, label=3)) == ([[30, 40, 40, 60]], [3])


def test_box_is_that_of_the_visible_part() -> None:
    # The nearer block hides the right half of the farther one.
    boxes, classes = boxes_of(block(20, 40, 10, 10, label=1), block(20, 40, 30, 10, label=2))
    assert boxes == [[10, 10, 30, 30], [30, 10, 70, 30]]
    assert classes == [1, 2]


@pytest.mark.parametrize(("cover", "labelled"), [(69, True), (70, True), (71, False), (100, False)])
def test_a_thing_hidden_by_more_than_seventy_percent_has_no_label(cover: int, labelled: bool) -> None:
    _, classes = boxes_of(block(10, 100, 0, 0, label=1), block(10, cover, 0, 0, label=None))
    assert classes == ([1] if labelled else [])


@pytest.mark.parametrize(("x", "expected"), [(-70, [[0, 0, 30, 10]]), (-71, []), (-300, []), (300, [])])
def test_what_lies_outside_the_image_counts_as_hidden(x: int, expected: list[list[float]]) -> None:
    assert boxes_of(block(10, 100, x, 0))[0] == expected


def test_distractors_hide_things_but_have_no_label() -> None:
    boxes, classes = boxes_of(block(10, 40, 0, 0, label=2), block(10, 20, 0, 0, label=None))
    assert (boxes, classes) == ([[20, 0, 40, 10]], [2])


def test_the_owner_map_says_whose_colour_a_pixel_shows() -> None:
    items = [block(30, 30, 5, 5, colour=0.2), block(30, 30, 20, 20, colour=0.9)]
    picture, owner = compose(np.full((64, 64, 3), 0.5, np.float32), items)
    np.testing.assert_allclose(picture[owner == 0], 0.2, rtol=1e-6)
    np.testing.assert_allclose(picture[owner == 1], 0.9, rtol=1e-6)
    assert (owner == 1).sum() == 900
    assert (owner == 0).sum() == 900 - 15 * 15


def test_compose_leaves_the_ground_as_it_was() -> None:
    ground = np.full((64, 64, 3), 0.5, np.float32)
    compose(ground, [block(30, 30, 5, 5)])
    assert (ground == 0.5).all()


@pytest.mark.parametrize("kind", NAMES)
def test_sprites_fill_their_crop_and_keep_to_their_size(kind: str) -> None:
    for seed in range(20):
        colour, inside = draw_sprite(kind, 60, np.random.default_rng(seed))
        assert colour.shape == (*inside.shape, 3)
        assert inside[0].any()
        assert inside[-1].any()
        assert inside[:, 0].any()
        assert inside[:, -1].any()
        assert 30 <= max(inside.shape) <= 60
        assert colour.min() >= 0
        assert colour.max() <= 1


def test_every_sprite_shows_a_pattern() -> None:
    for seed in range(20):
        for kind in NAMES:
            colour, inside = draw_sprite(kind, 60, np.random.default_rng(seed))
            brightness = colour.max(-1)[inside]
            assert np.percentile(brightness, 98) - np.percentile(brightness, 2) > 0.2, (kind, seed)


def test_distractors_of_all_shapes_can_be_drawn() -> None:
    fills = {round(float(draw_distractor(60, np.random.default_rng(seed)).inside.mean()), 1) for seed in range(40)}
    assert len(fills) > 2  # discs, polygons and bars fill their crop to different degrees


def test_boxes_lie_in_the_image_and_touch_pixels_of_their_thing_on_all_sides() -> None:
    for index in range(10):
        scene = draw_scene(IMGSZ, scene_generator(3, "val", index))
        assert scene.image.shape == (IMGSZ, IMGSZ, 3)
        assert scene.boxes.min() >= 0
        assert scene.boxes.max() <= IMGSZ
        labelled = [
            (k, item.label)
            for k, item in enumerate(scene.items)
            if item.label is not None and (scene.owner == k).sum() >= 0.3 * item.sprite.inside.sum()
        ]
        assert [label for _, label in labelled] == scene.classes.tolist()
        for (k, _), box in zip(labelled, scene.boxes, strict=True):
            x0, y0, x1, y1 = np.rint(box * SUPERSAMPLE).astype(int)
            seen = scene.owner == k
            assert seen[y0:y1, x0:x1].sum() == seen.sum()  # all of it inside, and no side can move inwards
            assert seen[y0].any()
            assert seen[y1 - 1].any()
            assert seen[:, x0].any()
            assert seen[:, x1 - 1].any()


def test_a_box_is_tight_around_the_pixels_of_the_finished_image() -> None:
    """Draw a scene twice, with and without its nearest labelled thing: only inside its box may colours change much."""
    checked = 0
    for index in range(10):
        scene = draw_scene(IMGSZ, scene_generator(5, "val", index))
        if scene.items[-1].label is None or not len(scene.boxes) or scene.classes[-1] != scene.items[-1].label:
            continue
        ground = np.full((IMGSZ * SUPERSAMPLE,) * 2 + (3,), 0.5, np.float32)
        item = scene.items[-1]._replace(sprite=scene.items[-1].sprite._replace(colour=_inverse(scene.items[-1])))
        change = [
            cv2.resize(compose(ground, [one])[0], (IMGSZ, IMGSZ), interpolation=cv2.INTER_AREA)
            for one in (scene.items[-1], item)
        ]
        rows, columns = np.nonzero(np.abs(change[0] - change[1]).max(-1) > 1e-4)
        drawn = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(drawn - scene.boxes[-1]).max() < 1.0
        checked += 1
    assert checked >= 3


def _inverse(item: Item) -> np.ndarray:
    return np.where(item.sprite.colour > 0.5, 0, 1).astype(np.float32)


def test_the_photograph_keeps_things_where_they_are() -> None:
    picture = np.full((IMGSZ, IMGSZ, 3), 0.2, np.float32)
    picture[20:40, 50:80] = 0.9
    image = _photograph(picture, np.random.default_rng(0))
    bright = cv2.medianBlur(image, 5).mean(-1) > 110
    rows, columns = np.nonzero(bright)
    assert (
        np.abs(np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) - [50, 20, 80, 40]).max() <= 2
    )


def test_sizes_kinds_and_occlusion_vary() -> None:
    scenes = [draw_scene(IMGSZ, scene_generator(0, "train", index)) for index in range(60)]
    sides = np.concatenate([(scene.boxes[:, 2:] - scene.boxes[:, :2]).max(1) for scene in scenes]) / IMGSZ
    counts = np.bincount(np.concatenate([scene.classes for scene in scenes]), minlength=len(NAMES))
    drawn = sum(item.label is not None for scene in scenes for item in scene.items)
    assert len(NAMES) >= 5
    assert counts.min() > 15
    assert np.percentile(sides, 5) < 0.2
    assert np.percentile(sides, 95) > 0.35
    assert counts.sum() < 0.97 * drawn  # some are hidden


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    one, two, other = (
        files_of(draw_set(tmp_path / name, 4, 2, IMGSZ, seed).parent) for name, seed in (("a", 7), ("b", 7), ("c", 8))
    )
    assert one == two
    images = [name for name in one if name.endswith(".png")]
    assert len(images) == len({one[name] for name in images}) == 6
    assert all(one[name] != other[name] for name in images)


def test_a_longer_set_begins_with_the_shorter_one(tmp_path: Path) -> None:
    short = files_of(draw_set(tmp_path / "short", 2, 1, IMGSZ).parent)
    long = files_of(draw_set(tmp_path / "long", 3, 2, IMGSZ).parent)
    assert all(long[name] == content for name, content in short.items() if name != "data.yaml")


def test_the_set_is_what_ultralytics_reads(tmp_path: Path) -> None:
    from ultralytics.data.utils import check_det_dataset

    data = draw_set(tmp_path / "set", 3, 2, IMGSZ)
    assert data == tmp_path / "set" / "data.yaml"
    read = check_det_dataset(str(data), autodownload=False)
    assert read["names"] == dict(enumerate(NAMES))
    for split, count in (("train", 3), ("val", 2)):
        images = sorted(Path(read[split]).glob("*.png"))
        assert len(images) == count
        for index, path in enumerate(images):
            scene = draw_scene(IMGSZ, scene_generator(0, split, index))
            assert (cv2.imread(str(path)) == scene.image).all()
            rows = np.loadtxt(tmp_path / "set" / "labels" / split / f"{path.stem}.txt", ndmin=2)
            centre, extent = rows[:, 1:3] * IMGSZ, rows[:, 3:] * IMGSZ
            np.testing.assert_allclose(np.hstack([centre - extent / 2, centre + extent / 2]), scene.boxes, atol=1e-3)
            assert rows[:, 0].tolist() == scene.classes.tolist()


def test_a_drawn_set_is_replaced_as_a_whole(tmp_path: Path) -> None:
    draw_set(tmp_path / "set", 3, 1, IMGSZ)
    data = draw_set(tmp_path / "set", 2, 1, IMGSZ, seed=1)
    assert len(list((tmp_path / "set" / "images" / "train").iterdir())) == 2
    assert yaml.safe_load(data.read_text())["drawn"]["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["set"]  # nothing temporary is left


def test_a_folder_that_is_not_a_drawn_set_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.yaml").write_text("train: images\n")
    with pytest.raises(IMAError, match="not a drawn set"):
        draw_set(tmp_path / "mine", 1, 1, IMGSZ)
    assert files_of(tmp_path / "mine") == {"data.yaml": b"train: images\n"}


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ima_yolo.demo.scenes._write_scene", full)
    with pytest.raises(IMAError, match="No space left"):
        draw_set(tmp_path / "set", 1, 1, IMGSZ)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "key"),
    [((0, 1, 96, 0), "train"), ((1, 0, 96, 0), "val"), ((1, 1, 16, 0), "imgsz"), ((1, 1, 96, -1), "seed")],
)
def test_values_out_of_range_are_named(tmp_path: Path, values: tuple[int, int, int, int], key: str) -> None:
    with pytest.raises(IMAError, match=f"^{key}="):
        draw_set(tmp_path / "set", *values)
