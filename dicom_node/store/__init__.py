"""The durable road of an instance, however it came (C-STORE, STOW-RS, a folder): file synced, row committed, answered.

::

    arrival.py  one instance on its way      header.py  the attributes that are kept of it
    part10.py   the head of a file, where it comes as one
    storage.py  the threads (hands.py) that make it durable, and the statuses that they answer
    rows.py     what the database is told           turn.py    which process tells it next
"""
