"""Images without labels: read and augmented as the labelled ones are, from a random stream of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DistributedSampler
from ultralytics.data.build import build_dataloader
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError
from ima_yolo.random_streams import seeded, set_streams, streams


class UnlabelledImages(YOLODataset):
    """A folder of images, without a look at any labels and without a cache file beside them.

    One that cannot be read is replaced by the next, with a warning: such folders are large and were never gone through
    by anyone, and a look at each of them before the training would take long.
    """

    def get_labels(self) -> list[dict[str, Any]]:
        """Return an empty label for each image."""
        self._damaged: set[int] = set()
        return [
            {
                "im_file": file,
                "shape": None,
                "cls": np.zeros((0, 1), np.float32),
                "bboxes": np.zeros((0, 4), np.float32),
                "segments": [],
                "keypoints": None,
                "normalized": True,
                "bbox_format": "xywh",
            }
            for file in self.im_files
        ]

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        """Return image `i` as Ultralytics does, or the next that can be read.

        Raises:
            IMAError: If there is none.
        """
        for index in (*range(i, len(self.im_files)), *range(i)):
            if index in self._damaged:
                continue
            try:
                return super().load_image(index, *args, **kwargs)
            except FileNotFoundError:  # what Ultralytics raises for anything that is no image
                LOGGER.warning(f"{self.im_files[index]}: cannot be read and is left out")
                self._damaged.add(index)
        raise IMAError(f"ima_unlabelled={self.img_path}: no image there can be read")


class UnlabelledStream:
    """Batches of images without labels, without end.

    Reading and augmenting them draws from random streams of its own: which labelled images a training sees, and how
    they are augmented, is the same with them as without.

    Args:
        folder: Searched through for images.
        args: Ultralytics' arguments: size, augmentation, workers.
        data: The labelled data set, for the channels of its images.
        count: Images a batch.
        seed: Of the streams.
        rank: Of this process; -1 for the only one.
    """

    def __init__(self, folder: str, args: Any, data: dict[str, Any], count: int, seed: int, rank: int = -1) -> None:
        """Find the images; none is read yet."""
        self._args = args
        self._state = seeded(seed + max(rank, 0) + 1)
        with self._own_randomness():
            images = UnlabelledImages(
                img_path=str(Path(folder)),
                imgsz=args.imgsz,
                batch_size=count,
                augment=True,
                hyp=copy(args),
                prefix="unlabelled: ",
                data={"channels": data["channels"], "names": {0: "none"}, "nc": 1},
                task="detect",
            )
            self._loader = build_dataloader(images, count, args.workers, shuffle=True, rank=rank)
        self._passes = 0
        self._batches = self._forever()

    def next(self) -> Tensor:
        """Return the next (B, C, H, W) uint8 images."""
        with self._own_randomness():
            return next(self._batches)

    def close_mosaic(self) -> None:
        """Go on without mosaic and the other mixtures of images, as the labelled ones do in the last epochs."""
        with self._own_randomness():
            self._loader.dataset.close_mosaic(hyp=copy(self._args))
            self._loader.reset()
            self._batches = self._forever()  # the pass that it was in ended with the loader's iterator

    def _forever(self) -> Iterator[Tensor]:
        while True:
            if isinstance(self._loader.sampler, DistributedSampler):
                self._loader.sampler.set_epoch(self._passes)  # or the order of every pass is that of the first
            self._passes += 1
            for batch in self._loader:
                yield batch["img"]

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Swap the global random streams, from which Ultralytics augments, for those of this object."""
        others = streams()
        set_streams(self._state)
        try:
            yield
        finally:
            self._state = streams()
            set_streams(others)
