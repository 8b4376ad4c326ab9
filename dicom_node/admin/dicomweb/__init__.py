"""DICOMweb (PS3.18) over the spool: search, retrieve, store. Source and results alike, as one study.

::

    search.py    QIDO-RS      store.py      STOW-RS: multipart.py takes the body apart, part10.py the head of a file,
    retrieve.py  WADO-RS                    taken.py hands each instance to the storage, which shelf.py keeps
"""

from dicom_node.admin.dicomweb import retrieve, search, store

ROUTERS = (search.router, retrieve.router, store.router)
