"""What people and programs see of the node over HTTP: pages, REST API, DICOMweb. It never runs a job.

::

    site.py     the application: routes, what every answer carries, how errors are told
    gate.py     who asks; nobody gets past it unknown but to sign in, to the style sheet and to the health checks
    pages/      HTML, one module a subject      api/       /api/v1      dicomweb/  /dicom-web
    picture.py  slices and overlays as PNG      report.py  a structured report as text
"""
