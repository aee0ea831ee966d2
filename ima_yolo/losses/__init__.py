"""Feature losses, one file each: a pure function with its equation, and a thin module."""

from ima_yolo.losses.base import LevelLoss
from ima_yolo.losses.cwd import CWDLoss, cwd_loss
from ima_yolo.losses.head import balanced, box_loss, score_loss
from ima_yolo.losses.ima import IMALoss, ima_loss
from ima_yolo.losses.l2 import L2Loss, l2_loss
from ima_yolo.losses.mgd import MGDLoss, mgd_loss
from ima_yolo.losses.pkd import PKDLoss, pkd_loss

__all__ = [
    "CWDLoss",
    "IMALoss",
    "L2Loss",
    "LevelLoss",
    "MGDLoss",
    "PKDLoss",
    "balanced",
    "box_loss",
    "cwd_loss",
    "ima_loss",
    "l2_loss",
    "mgd_loss",
    "pkd_loss",
    "score_loss",
]
