"""The trainer: Ultralytics' own, with a teacher attached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from torch import nn
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.models.yolo.semantic import SemanticSegmentationTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, WORLD_SIZE

from ima_yolo import checkpoint, host
from ima_yolo.assembly import build_distiller
from ima_yolo.attach import attach, cannot_compile, detach, is_attached
from ima_yolo.config import Settings, validate
from ima_yolo.continuing import Continuing
from ima_yolo.distill import Distiller
from ima_yolo.errors import IMAError, is_full_disk, is_users_fault, one_line
from ima_yolo.files import take_away
from ima_yolo.given import given
from ima_yolo.pairing import choose_heads, fit_teachers, load_teachers
from ima_yolo.preflight import Plan, prepare, side_of, student_kind
from ima_yolo.recipes import CARRIED
from ima_yolo.students import RTDETR
from ima_yolo.teachers import Teacher
from ima_yolo.teachers.load import choose_runtime
from ima_yolo.teachers.view import differences
from ima_yolo.trust import trusting
from ima_yolo.unlabelled import UnlabelledStream

NAN = "NaN persisted"  # in what Ultralytics raises once its own loss or weights were no numbers for several epochs


class Distilling(Continuing):
    """Adds a teacher to an Ultralytics trainer; stands before it among the bases.

    Overridden: `__init__` (keeps our keys from Ultralytics), `train` (several devices; restores the student's class),
    `set_model_attributes` (attaches), `_build_train_pipeline` (attaches to a quantized student),
    `_load_checkpoint_state` (resume, NaN recovery), `save_model` and `final_eval` (our key in the checkpoints),
    `preprocess_batch` (images without labels), `save_metrics` (the weight's column) and `auto_batch` (a warning).
    """

    kind = "detect"  # of the students that it trains, see `ima_yolo.students`
    distiller: Distiller  # once the student is built
    world_size: int
    wdir: Path
    last: Path
    best: Path

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: Any = None) -> None:
        """Check everything, then start as Ultralytics does.

        Args:
            cfg: Base configuration, as for any Ultralytics trainer; may hold our keys as well.
            overrides: Keys and values, ours (`teacher`, `student`, `ima_*`) and Ultralytics'.
            _callbacks: Ultralytics' callbacks.

        Raises:
            IMAError: For a setting or file that cannot work; nothing has been written then.
        """
        host.check_version()
        options = given(cfg, overrides)
        carried = options.pop(CARRIED, None) if RANK != -1 else None  # from the parent of this process alone
        plan = _carried(carried, options) if carried else prepare(options, self.kind)
        self.settings: Settings = plan.settings
        self.teachers: tuple[Teacher, ...] = plan.teachers
        self._made = plan.made
        self._is_trained = plan.is_trained
        self._has_started = False
        super().__init__(DEFAULT_CFG, plan.overrides, _callbacks)
        self.world_size = processes(self.world_size)
        self._unlabelled: UnlabelledStream | None = None
        self._mosaic_is_closed = False
        self._teacher_digest = "+".join(teacher.digest() for teacher in self.teachers)
        if RANK in {-1, 0}:
            record = {**self.settings.model_dump(mode="json"), "teacher_digest": self._teacher_digest}
            (self.save_dir / "ima.yaml").write_text(yaml.safe_dump(record, sort_keys=False), encoding="utf-8")

    def train(self) -> None:
        """Train; the student is a plain model again afterwards, whatever happens.

        Raises:
            IMAError: For data or values that turn out to be unusable before the first step; a new folder is removed.
                Where the disk is full, also later; what was saved stays whole.
        """
        if self.ddp:
            self._tell_workers()
        try:
            super().train()
        except Exception as error:
            if is_full_disk(error):
                raise IMAError(self._cannot_be_written(error)) from error
            if NAN in str(error):
                raise IMAError(f"{one_line(error)}; lower lr0=, or look at momentum=, box= and cls=") from error
            if self._has_started or self.ddp or not is_users_fault(error):
                raise
            take_away(self.save_dir, self._made)  # it holds nothing but what was asked for
            raise IMAError(one_line(error)) from error
        finally:
            self.args.__dict__.pop(CARRIED, None)
            if isinstance(self.model, nn.Module):
                detach(self.model)

    def _tell_workers(self) -> None:
        """Leave our settings in `self.args`, which Ultralytics hands to the workers, and no file that was read here."""
        setattr(self.args, CARRIED, self.settings.model_dump(mode="json"))
        self.args.cfg = None

    def _cannot_be_written(self, error: Exception) -> str:
        again = f"go on with `ima-yolo train resume model={self.last}`" if self.last.exists() else "start again"
        return f"{self.save_dir}: cannot be written ({one_line(error)}); free some space and {again}"

    def set_model_attributes(self) -> None:
        """Attach the teacher: the student is on its device, and neither compiled, wrapped nor in an optimizer yet."""
        super().set_model_attributes()
        if self.args.compile and (obstacle := cannot_compile(self.model, self.world_size, self.args.quantize == 8)):
            LOGGER.warning(f"compile= is switched off: {obstacle}")
            self.args.compile = False
        student = host.probe(self.model, self.data["channels"])
        channels = self.data["channels"]
        side = side_of(self.args.imgsz)
        views = fit_teachers(self.settings, self.teachers, student.strides, channels, side)
        chosen = self.settings.for_task(self.args.task)
        heads = choose_heads(chosen, self.kind, student.strides, self.teachers, side, self.data["names"])
        self.in_force: Settings = heads.settings
        self.distiller = build_distiller(
            heads.settings,
            views,
            student,
            self.device,
            self.args.seed,
            max(RANK, 0),
            names=self.data["names"],
            gains={"cls": self.args.cls, "box": self.args.box},
            compared=heads.compared,
        )
        if self.args.quantize != 8:
            attach(self.model, self.distiller)
        self.add_callback("on_train_start", _note_start)
        self.add_callback("on_train_epoch_start", _advance)
        self.callbacks["on_train_end"].insert(0, _finish)
        for line in heads.told:
            LOGGER.info(line)
        for view in views:
            LOGGER.info(f"Distilling from {view.name} at strides {list(view.strides)}")
            for line in differences(view, student.strides, channels):
                LOGGER.info(line)
        if chosen.ima_unlabelled and chosen.ima_instance == "region":
            LOGGER.info("The classes of images without labels are not known: each of them counts as one instance")

    def _build_train_pipeline(self) -> None:
        """Attach to a student that was quantized meanwhile, where the adapters would have been too; build the rest."""
        if not is_attached(self.model):
            attach(self.model, self.distiller)
        super()._build_train_pipeline()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Prepare a batch as Ultralytics does, and add images without labels if there are any."""
        batch = super().preprocess_batch(batch)
        if self.settings.ima_unlabelled is None or not self.distiller.is_on:
            return batch
        if self._unlabelled is None:
            seen = self.settings.ima_batch_share * self.batch_size / max(self.world_size, 1)
            count = max(1, round(self.settings.ima_unlabelled_ratio * seen))
            folder = self.settings.ima_unlabelled
            self._unlabelled = UnlabelledStream(folder, self.args, self.data, count, self.args.seed, RANK)
            if self._mosaic_is_closed:
                self._unlabelled.close_mosaic()
        images = self._unlabelled.next().to(self.device, non_blocking=True)
        return {**batch, host.UNLABELLED: images.float() / 255}

    def _close_dataloader_mosaic(self) -> None:
        """Close it for the images without labels too."""
        super()._close_dataloader_mosaic()
        self._mosaic_is_closed = True
        if self._unlabelled is not None:
            self._unlabelled.close_mosaic()

    def _load_checkpoint_state(self, ckpt: dict[str, Any]) -> None:
        """Restore adapters, weight and masks beside the optimizer, on resume and on recovery from NaN."""
        try:
            self._load_distillation(ckpt)
        except IMAError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise IMAError(f"{self.args.model}: {checkpoint.DAMAGED} ({one_line(error)})") from error

    def _load_distillation(self, ckpt: dict[str, Any]) -> None:
        super()._load_checkpoint_state(ckpt)
        packed = checkpoint.unpack(ckpt, self.args.model)
        if packed["teacher_digest"] != self._teacher_digest:
            LOGGER.warning(f"The weights of {self.settings.teacher} are not those that this run was started with")
        self.distiller.load(packed["distiller"])
        if not self._has_started:  # on recovery from NaN the same random streams would lead to the same NaN
            self.go_on_exactly(packed.get("exact"), ckpt["epoch"] + 1)

    def save_model(self) -> bool:
        """Write the checkpoints whole or not at all, with what resuming needs under our key."""
        packed = checkpoint.pack(self.settings, self._teacher_digest, self.distiller.state(), bool(self.stop))
        exact = self.exact_state()
        with checkpoint.saving_whole(self) as staging:
            with checkpoint.carrying({**packed, "exact": exact}):
                saved = super().save_model()
            for file in staging.glob("epoch*.pt"):
                checkpoint.slim(file)
        return bool(saved)

    def final_eval(self) -> None:
        """Validate the best checkpoint; leave only the settings under our key of what is finished.

        Ultralytics finishes last.pt first. Here that is a copy, which takes its place when all else is done: until then
        a run that is killed can be resumed.
        """
        last = self.last
        if RANK in {-1, 0}:
            self.last = checkpoint.set_apart(last)
        try:
            with checkpoint.carrying(checkpoint.pack(self.settings, self._teacher_digest, None)):
                super().final_eval()
        finally:
            self.last = last

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write the epoch's row of results.csv with the weight of the distillation as its last column."""
        super().save_metrics({**metrics, "ima/weight": self.distiller.effective_weight})

    def auto_batch(self, *args: Any, **kwargs: Any) -> int:
        """Estimate the batch size as Ultralytics does, which does not count the teacher."""
        LOGGER.warning("batch=-1 is estimated without the teacher's memory; give a number if memory runs out")
        return int(super().auto_batch(*args, **kwargs))


class IMATrainer(Distilling, DetectionTrainer):
    """Trains a student with a teacher by Instance Mask Alignment.

    Called by this name it becomes the trainer of the student's task; the others name one task.

    Examples:
        >>> from ima_yolo import IMATrainer
        >>> options = {"teacher": "yolo26m.pt", "model": "yolo26n.pt", "data": "coco8.yaml", "epochs": 3}
        >>> IMATrainer(overrides=options).train()  # doctest: +SKIP
    """

    def __new__(
        cls, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: Any = None
    ) -> IMATrainer:
        """Make a trainer of the student's task."""
        if cls is not IMATrainer:
            return object.__new__(cls)
        try:
            kind = student_kind(given(cfg, overrides))
        except IMAError:
            kind = "detect"  # whose checks find the fault
        return object.__new__(TRAINERS[kind])


class IMARTDETRTrainer(IMATrainer, RTDETRTrainer):
    """Trains an RT-DETR detector with a teacher."""

    kind = RTDETR


class IMASegmentationTrainer(IMATrainer, SegmentationTrainer):
    """Trains a student for instance segmentation with a teacher."""

    kind = "segment"


class IMASemanticTrainer(IMATrainer, SemanticSegmentationTrainer):
    """Trains a student for semantic segmentation with a teacher; an instance is the region of a class."""

    kind = "semantic"


class IMAPoseTrainer(IMATrainer, PoseTrainer):
    """Trains a student for pose estimation with a teacher."""

    kind = "pose"


class IMAOBBTrainer(IMATrainer, OBBTrainer):
    """Trains a student for oriented boxes with a teacher."""

    kind = "obb"


TRAINERS: dict[str, type[IMATrainer]] = {
    trainer.kind: trainer
    for trainer in (
        IMATrainer,
        IMARTDETRTrainer,
        IMASegmentationTrainer,
        IMASemanticTrainer,
        IMAPoseTrainer,
        IMAOBBTrainer,
    )
}


def processes(counted: int) -> int:
    """How many processes train together: those of all nodes where torchrun started this one.

    Args:
        counted: Those that Ultralytics knows of: the GPUs of this node, 0 for a CPU.
    """
    return WORLD_SIZE if counted and RANK != -1 else counted


def _note_start(trainer: Distilling) -> None:
    """From here on there is something to lose."""
    trainer._has_started = True
    settings = trainer.settings
    if settings.ima_every > len(trainer.train_loader):
        LOGGER.warning(f"ima_every={settings.ima_every} is more than an epoch has batches: some go without the teacher")
    looks = len(trainer.train_loader.dataset) * trainer.epochs * settings.ima_batch_share / settings.ima_every
    choose_runtime(trainer.teachers, settings.ima_teacher_runtime, trainer.device, looks)


def _finish(trainer: Distilling) -> None:
    """Nothing is left to be done."""
    checkpoint.put_back(trainer.last)


def _advance(trainer: Distilling) -> None:
    """Tell the distiller how far the training is."""
    trainer.distiller.set_progress(trainer.epoch / trainer.epochs)


def _carried(carried: dict[str, Any], options: dict[str, Any]) -> Plan:
    """Plan of a worker process: its parent has checked everything."""
    settings, last = validate(carried), options.get("resume")
    with trusting(settings.ima_trust):
        is_trained = bool(last) and checkpoint.is_trained(host.load_model(str(last), "resume")[1])
        return Plan(settings, options, load_teachers(settings), is_trained=is_trained)
