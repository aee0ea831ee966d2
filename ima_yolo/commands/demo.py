"""`ima-yolo demo`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ima_yolo.commands.options import load_safely, no_bare_words
from ima_yolo.errors import IMAError, nearest

KEYS = ("output", "seed", "device")


def demo(options: dict[str, Any]) -> int:
    """Run the whole line on a drawn data set."""
    load_safely()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the cores to others; read by torch
    options = no_bare_words(options)
    for key in options:
        if key not in KEYS:
            raise IMAError(f"'{key}' is not a setting of demo{nearest(key, KEYS)}; it takes {', '.join(KEYS)}")
    from ima_yolo.ranges import LARGEST_SEED, is_seed

    seed = options.get("seed", 0)
    if not is_seed(seed):
        raise IMAError(f"seed={seed}: expected a whole number from 0 to {LARGEST_SEED}")
    from ima_yolo.demo.run import run
    from ima_yolo.preflight import check_device

    device = options.get("device")
    check_device(device)
    run(Path(str(options.get("output") or "ima-demo")).absolute(), seed, None if device is None else str(device))
    return 0
