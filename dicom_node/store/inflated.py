"""What a deflated data set (PS3.5 A.5) would become: looked at when it comes, so that nobody later inflates a bomb."""

from __future__ import annotations

import zlib

from dicom_node.errors import CannotUnderstand
from dicom_node.store.header import Source

MOST_FREE = 64 * 1024 * 1024
MOST_TIMES = 50  # images become five times as small, seldom fifty
_WINDOW, _STEP = 64 * 1024, 1024 * 1024


def check_inflated(source: Source) -> None:
    """Inflate a data set piece by piece, keep nothing, and stop where it becomes too much.

    Raises
    ------
    CannotUnderstand
        If it has more than `MOST_FREE` bytes and more than `MOST_TIMES` what was sent.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    sent = became = 0
    while not inflater.eof:
        deflated = inflater.unconsumed_tail
        if not deflated:
            deflated = source.read(sent, _WINDOW)
            sent += len(deflated)
        try:
            inflated = inflater.decompress(deflated, _STEP)
        except zlib.error:
            return  # it is kept as it came; whoever reads it hears the same
        became += len(inflated)
        if became > MOST_FREE + MOST_TIMES * sent:
            raise CannotUnderstand(f"a deflated data set that would inflate to more than {became >> 20} MiB")
        if not deflated and not inflated:
            return
