"""DICOMweb (PS3.18) over what the spool holds: search, retrieve. Source and results alike, as one study."""

from dicom_node.admin.dicomweb import retrieve, search

ROUTERS = (search.router, retrieve.router)
