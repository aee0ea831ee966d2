"""`python -m ima_yolo` is `ima-yolo`."""

from __future__ import annotations

import sys

from ima_yolo.cli import main

if __name__ == "__main__":
    sys.exit(main())
