"""Models: arrays in, arrays out. This package knows nothing of DICOM nodes, and importing it imports no framework."""
