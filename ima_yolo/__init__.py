"""IMA-YOLO: a small YOLO model learns from a big one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ima_yolo.trainer import IMATrainer

__version__ = "0.1.0"
__all__ = ["IMATrainer", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the trainer on first use: the runtime for edge devices works without torch and ultralytics."""
    if name == "IMATrainer":
        from ima_yolo.trainer import IMATrainer

        return IMATrainer
    raise AttributeError(f"module 'ima_yolo' has no attribute '{name}'")
