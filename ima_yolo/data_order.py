"""Which images come next and how they are augmented: noted while training, so that a resumed run sees the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ima_yolo.random_streams import Streams, set_streams, streams

STREAMS = "ima_streams"  # key of a batch under which a worker hands over the state of its random streams


class DataOrder:
    """Follows a training loader of Ultralytics, and sets a new one to where another stood at the end of an epoch.

    The loader gives the same batches as without: the sampler's generator is only looked at, and workers hand over the
    state of their streams beside each batch.

    Args:
        loader: An `InfiniteDataLoader` that has not begun, with a `RandomSampler`.
    """

    def __init__(self, loader: Any) -> None:
        """Hook into the loader."""
        self._loader = loader
        self._make: Callable[[], Any] = loader._get_iterator
        batches = loader.batch_sampler.sampler  # Ultralytics repeats torch's batch sampler
        self._sampler = batches.sampler = _NotedSampler(batches.sampler)
        self._seen = 0  # batches since the iterator was made
        self._of_worker: dict[int, Streams] = {}
        self._pending: dict[str, Any] | None = None
        loader._get_iterator = self._begin
        if loader.num_workers:
            loader.collate_fn = _Handover(loader.collate_fn)

    def take(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take note of a batch and return it without what was handed over."""
        workers = self._loader.num_workers
        if workers:
            self._of_worker[self._seen % workers] = batch.pop(STREAMS)
        self._seen += 1
        self._sampler.forget(self._seen // len(self._loader))  # a run that saves nothing never asks for them
        return batch

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `restore` goes on; call it at the end of an epoch."""
        workers = self._loader.num_workers
        queue = [self._of_worker[(self._seen + index) % workers] for index in range(workers)] if workers else []
        return {
            "workers": workers,
            "permutation": self._sampler.before(self._seen // len(self._loader)),
            "generator": self._loader.generator.get_state(),
            "streams": {**streams(), "buffer": _buffer(self._loader.dataset)},
            "queue": queue,
        }

    def restore(self, state: dict[str, Any], anew: bool = False) -> bool:
        """Go on from `state`; call it when an epoch begins, before its first batch.

        Args:
            state: What `state` returned at the end of the epoch before.
            anew: Whether the run would have made a new iterator for this epoch, as it does when it closes the mosaic.

        Returns:
            Whether the batches will be the same; not with another number of workers, which share them out differently.

        Raises:
            ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError or ValueError: If something of `state`
                cannot be put back, be it now, by the sampler or by a worker.
        """
        self._try_out(state)
        _set_all(state["streams"], self._loader.dataset)
        if anew:
            self._loader.generator.set_state(state["generator"])
            return True
        if state["workers"] != self._loader.num_workers:
            return False
        self._pending = state
        return True

    def _try_out(self, state: dict[str, Any]) -> None:
        """Set what is used later, by the sampler and by workers, where nobody would say what is wrong with it.

        The global random streams are left anywhere.
        """
        for name in ("permutation", "generator"):
            torch.Generator().set_state(state[name])
        if self._loader.num_workers == state["workers"] != len(state["queue"]):  # others of them start anew
            raise ValueError("the random streams are not those of its workers")
        for queued in (state["streams"], *state["queue"]):
            set_streams(queued)
            if not all(type(index) is int and 0 <= index < len(self._loader.dataset) for index in _images(queued)):
                raise IndexError("an image that is not there")

    def _begin(self) -> Any:
        """Make the iterator, as the loader does when an epoch begins that has none."""
        self._seen = 0
        self._sampler.begin(None if self._pending is None else self._pending["permutation"])
        if self._pending is None:
            return self._make()
        pending, self._pending = self._pending, None
        first = self._loader.worker_init_fn
        self._loader.worker_init_fn = partial(_begin_worker, queue=pending["queue"])
        iterator = self._make()
        self._loader.worker_init_fn = first
        return iterator


class _NotedSampler:
    """Hands a sampler through and notes its generator's state before each permutation."""

    def __init__(self, sampler: Any) -> None:
        self._sampler = sampler
        self._states: dict[int, Tensor] = {}
        self._first: Tensor | None = None
        self._count = 0
        self._is_open = False  # whether the last index of the latest permutation has yet to be passed

    def begin(self, first: Tensor | None) -> None:
        """Count from a new iterator on, whose first permutation comes from a given state if there is one."""
        self._states, self._first, self._count, self._is_open = {}, first, 0, False

    def forget(self, index: int) -> None:
        """Drop what was noted before an epoch, counted from the iterator's first."""
        for old in [old for old in self._states if old < index]:
            del self._states[old]

    def before(self, index: int) -> Tensor:
        """State before the permutation of an epoch, counted from the iterator's first."""
        found = self._states.get(index)
        if found is not None:
            return found
        ahead = torch.Generator().set_state(self._sampler.generator.get_state())
        if self._is_open:  # the last batch was full: torch's sampler draws once more before it finds that it is done
            torch.randperm(len(self._sampler), generator=ahead)
        return ahead.get_state()

    def __iter__(self) -> Iterator[int]:
        if self._first is not None:
            self._sampler.generator.set_state(self._first)
            self._first = None
        self._states[self._count] = self._sampler.generator.get_state()
        self._count += 1
        self._is_open = True
        yield from self._sampler
        self._is_open = False

    def __len__(self) -> int:
        return len(self._sampler)


class _Handover:
    """Collates a batch in a worker and adds the state of the worker's streams after it."""

    def __init__(self, collate: Callable[[list[Any]], dict[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> dict[str, Any]:
        batch = self._collate(samples)
        worker: Any = get_worker_info()
        batch[STREAMS] = {**streams(), "buffer": _buffer(worker.dataset)}
        return batch


def _begin_worker(index: int, queue: Sequence[Streams]) -> None:
    worker: Any = get_worker_info()
    _set_all(queue[index], worker.dataset)


def _buffer(dataset: Any) -> Tensor:
    """Images that Ultralytics' mosaic draws from, oldest first; none where all are in memory."""
    return torch.tensor(list(dataset.buffer), dtype=torch.int64)


def _images(state: Streams) -> list[int]:
    found: list[int] = state["buffer"].tolist()
    return found


def _set_all(state: Streams, dataset: Any) -> None:
    """Fill the mosaic's images again, then set the streams."""
    dataset.buffer.clear()
    for index in _images(state):
        dataset.load_image(index)
    set_streams(state)
