"""The part of the trainer that makes a resumed run equal to one that never stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import RandomSampler
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import LOGGER, RANK

from ima_yolo.data_order import DataOrder
from ima_yolo.errors import IMAError, one_line
from ima_yolo.exact import Cadence, capture, restore, restore_gradients, trim_results


class Continuing(BaseTrainer if TYPE_CHECKING else object):  # type: ignore[misc]
    """Keeps and restores what Ultralytics' own resume rounds or forgets; for a training in one process.

    Overridden: `_build_train_pipeline` (follows the loader), `preprocess_batch` and `optimizer_step` (count),
    `accumulate` (tells Ultralytics' loop when the next step is due), and `_do_train` and `resume_training` (a run that
    was stopped after its last epoch, which Ultralytics takes for finished).
    """

    csv: Path
    tloss: dict[str, Any]
    lr: dict[str, float]
    _order: DataOrder | None = None
    _saved: dict[str, Any] | None = None  # until the first resumed epoch begins
    _is_trained = False  # whether the run that is resumed has all its epochs behind it

    @property
    def accumulate(self) -> int:
        """Batches between two optimizer steps."""
        return self._cadence.asked

    @accumulate.setter
    def accumulate(self, count: int) -> None:
        self._cadence.accumulate = count

    @property
    def _cadence(self) -> Cadence:
        kept: Cadence = self.__dict__.setdefault("_kept_cadence", Cadence())
        return kept

    def _do_train(self) -> None:
        """Train as Ultralytics does; of a run that is trained already, do what comes after its last epoch."""
        if not self._is_trained:
            super()._do_train()
            return
        if self.world_size > 1:
            self._setup_ddp()
        self._setup_train()
        LOGGER.info(f"All {self.epoch + 1} epochs are done: the final evaluation is left")
        self.tloss, self.lr, self.epoch_time = {}, {}, 0.0  # loggers read them after the evaluation
        self.final_eval()
        if RANK in {-1, 0}:
            if self.args.plots:
                self.plot_metrics()
            self.run_callbacks("on_train_end")
        for loader in (self.train_loader, self.test_loader):
            loader.close()

    def resume_training(self, ckpt: dict[str, Any] | None) -> None:
        """Resume as Ultralytics does; of a run that is trained already, load the state alone."""
        if not self._is_trained or ckpt is None:
            super().resume_training(ckpt)
            return
        self._load_checkpoint_state(ckpt)
        self.epoch = ckpt["epoch"]

    def _build_train_pipeline(self) -> None:
        """Build loaders, optimizer and scheduler as Ultralytics does, and follow the training images."""
        super()._build_train_pipeline()
        loader = self.train_loader
        sampler = getattr(getattr(loader.batch_sampler, "sampler", None), "sampler", None)
        self._order = DataOrder(loader) if RANK == -1 and isinstance(sampler, RandomSampler) else None
        for event, callback in (("on_train_epoch_start", _begin_epoch), ("on_train_batch_start", _count_batch)):
            if callback not in self.callbacks[event]:  # Ultralytics builds anew with a smaller batch if memory runs out
                self.add_callback(event, callback)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take note of the batch, then prepare it as Ultralytics does."""
        taken = batch if self._order is None else self._order.take(batch)
        prepared: dict[str, Any] = super().preprocess_batch(taken)
        return prepared

    def optimizer_step(self) -> None:
        """Step as Ultralytics does, and take note of it."""
        super().optimizer_step()
        self._cadence.stepped()

    def exact_state(self) -> dict[str, Any] | None:
        """All that a run needs to go on exactly; None where that is not offered."""
        if self._order is None or self.ema is None:
            return None
        kept = capture(self.model, self.ema.ema, self.optimizer, self._cadence)
        return {**kept, "order": self._order.state()}

    def go_on_exactly(self, saved: dict[str, Any] | None, epochs: int) -> None:
        """Put back what `exact_state` gave.

        Args:
            saved: Its value, or None.
            epochs: How many the checkpoint has behind it.
        """
        if RANK in {-1, 0}:  # the processes of a training share the file
            trim_results(self.csv, epochs)
        if saved is None or self._order is None or self.ema is None:
            LOGGER.warning("Resuming from rounded weights and new random streams, as Ultralytics does")
            return
        with _sound():
            restore(saved, self.model, self.ema.ema, self.optimizer, self._cadence)
        self._saved = saved


@contextmanager
def _sound() -> Iterator[None]:
    """Say in one line that a checkpoint's record cannot be put back."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise IMAError(f"resume: the record for an exact resume is damaged ({one_line(error)})") from error


def _begin_epoch(trainer: Continuing) -> None:
    trainer._cadence.batch = trainer.epoch * len(trainer.train_loader) - 1
    if trainer._saved is None or trainer._order is None:
        return
    closes_mosaic = trainer.epoch == trainer.epochs - trainer.args.close_mosaic
    with _sound():
        restore_gradients(trainer._saved, trainer.model)
        is_same = trainer._order.restore(trainer._saved["order"], anew=closes_mosaic)
    if not is_same:
        LOGGER.warning("Resuming with another number of workers: the images that follow are augmented otherwise")
    trainer._saved = None


def _count_batch(trainer: Continuing) -> None:
    if trainer._cadence.batch is not None:
        trainer._cadence.batch += 1
