"""Pictures that lie under an address."""

from __future__ import annotations

from http.client import HTTPException
from urllib.request import urlopen

from ima_yolo.errors import IMAError, one_line

MOST_BYTES = 2**28


def fetch(address: str, timeout: float) -> bytes:
    """Fetch a picture's file.

    Args:
        address: http:// or https://.
        timeout: Seconds without any answer.

    Raises:
        IMAError: Why it cannot be had, without the address.
    """
    try:
        with urlopen(address, timeout=timeout) as answer:
            data: bytes = answer.read(MOST_BYTES + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise IMAError(f"cannot be fetched ({one_line(error)})") from error
    if len(data) > MOST_BYTES:
        raise IMAError(f"cannot be fetched (larger than {MOST_BYTES >> 20} MB)")
    return data
