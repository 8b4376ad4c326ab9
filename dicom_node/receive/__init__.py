"""Receive: DICOM associations in, durable instances out."""
