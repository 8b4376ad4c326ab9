"""Bundles that an administrator adds: understood, unpacked safely, given a card, pinned to what was reviewed.

Nothing here runs a line of a bundle: it is read, copied and hashed. Running it is the work of `work`.
"""

from __future__ import annotations
