"""Files as a source: folders, discs, archives; every instance goes the road of C-STORE (`store`).

::

    found.py      the files behind a path: of a folder, a disc, a zip; each can be opened and read once
    directory.py  what a DICOMDIR says should be on its disc
    instance.py   one file looked at: what it announces, whether it is whole, whether we have it already
    batch.py      files on their way into the storage, and what became of each
    importing.py  `dicom-node import`
"""
