"""The fetching process: batches of studies that are asked back from an archive, at night, at a pace, item by item.

::

    fetcher.py   which item is due, and what it comes to
    studies.py   one study: C-MOVE to a receiver of ours, C-GET or WADO-RS into the storage
"""
