"""Study, series and instance: when a series is complete, and whether its instances are one volume."""

from __future__ import annotations

# The attributes read from every instance at receipt and kept in its row: what routing, completeness and geometry ask for.
# Nothing here names a person but PatientID, without which two patients in one series could not be told apart.
HEADER: tuple[str, ...] = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "AccessionNumber",
    "StudyDate",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "BodyPartExamined",
    "Modality",
    "ImageType",
    "Manufacturer",
    "ManufacturerModelName",
    "ContrastBolusAgent",
    "ConvolutionKernel",
    "RequestedProcedurePriority",
    "InstanceNumber",
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "DiffusionBValue",
    "NumberOfFrames",
    "NumberOfSeriesRelatedInstances",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "GantryDetectorTilt",
)
