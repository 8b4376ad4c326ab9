"""The web pages, the REST API and DICOMweb, on a node with real results."""
