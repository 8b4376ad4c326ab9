"""Which attributes stay, and as what: everything that is not named here is removed, known to the standard or not.

PS3.15 Table E.1-1 names what has to go. A list of what may stay, checked against it by hand, is shorter and fails on
the safe side: an attribute of next year's standard, a private one, a sequence that nobody thought of, all go. Free text
goes always (no Clean Descriptors Option), and so do people, places and free identifiers.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    """Read keywords; a line that begins with # says what the next ones are about."""
    lines = [line for line in text.splitlines() if not line.strip().startswith("#")]
    return frozenset(" ".join(lines).split())


# What says nothing of a person. Not in Table E.1-1, or K there.
KEPT = _names("""
    # the kind of object, and its place in the series
    SpecificCharacterSet SOPClassUID ImageType Modality SeriesNumber InstanceNumber AcquisitionNumber
    # geometry
    BodyPartExamined PatientPosition Laterality ImageLaterality ImagePositionPatient ImageOrientationPatient
    PixelSpacing SliceThickness SpacingBetweenSlices SliceLocation GantryDetectorTilt TableHeight NumberOfFrames
    NumberOfSlices TemporalPositionIdentifier NumberOfTemporalPositions TemporalPositionIndex StackID
    InStackPositionNumber DimensionIndexValues DimensionIndexPointer FunctionalGroupPointer
    # pixels
    SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns BitsAllocated BitsStored HighBit
    PixelRepresentation PixelAspectRatio SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue
    PixelPaddingRangeLimit BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression
    LossyImageCompressionRatio LossyImageCompressionMethod RescaleIntercept RescaleSlope RescaleType WindowCenter
    WindowWidth VOILUTFunction PresentationLUTShape
    # technique
    Manufacturer ManufacturerModelName SoftwareVersions KVP ExposureTime XRayTubeCurrent Exposure ConvolutionKernel
    FilterType ScanOptions DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector
    DistanceSourceToPatient RotationDirection FocalSpots RevolutionTime SpiralPitchFactor TableSpeed
    TableFeedPerRotation SingleCollimationWidth TotalCollimationWidth CTDIvol ScanningSequence SequenceVariant
    MRAcquisitionType RepetitionTime EchoTime EchoNumbers EchoTrainLength InversionTime FlipAngle
    MagneticFieldStrength ImagedNucleus NumberOfAverages PixelBandwidth DiffusionBValue TriggerTime Units
    # segmentations that we made
    SegmentationType SegmentsOverlap SegmentNumber SegmentLabel SegmentAlgorithmType SegmentAlgorithmName
    ReferencedSegmentNumber RecommendedDisplayCIELabValue MaximumFractionalValue SegmentationFractionalType
    AlgorithmName AlgorithmVersion DimensionOrganizationType
    # codes: their scheme says whose the meaning is
    CodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning LongCodeValue ContextIdentifier MappingResource
    ContextGroupVersion
""")

# Sequences that are walked, item by item, by the same lists; every other sequence goes as a whole.
WALKED = _names("""
    SegmentSequence SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence
    SegmentedPropertyTypeModifierCodeSequence AnatomicRegionSequence AnatomicRegionModifierSequence
    SegmentationAlgorithmIdentificationSequence AlgorithmFamilyCodeSequence SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence PlanePositionSequence PlaneOrientationSequence PixelMeasuresSequence
    FrameContentSequence SegmentIdentificationSequence DerivationImageSequence SourceImageSequence
    DerivationCodeSequence PurposeOfReferenceCodeSequence ReferencedSeriesSequence ReferencedInstanceSequence
    DimensionOrganizationSequence DimensionIndexSequence PixelValueTransformationSequence FrameVOILUTSequence
    CTImageFrameTypeSequence
""")

# U: another UID, the same for the same one; as it is with the Retain UIDs Option.
UIDS = _names("""
    StudyInstanceUID SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID ReferencedSOPInstanceUID
    DimensionOrganizationUID TrackingUID SynchronizationFrameOfReferenceUID ReferencedSOPClassUID
""")

# Z: there, and empty, as their IODs want them (type 2).
EMPTIED = _names("""
    PatientName PatientBirthDate AccessionNumber ReferringPhysicianName StudyID StudyDate StudyTime PatientSex
    PositionReferenceIndicator ContrastBolusAgent
""")

# With an option: as they are, or moved by as many days as everything else.
DATES = _names("StudyDate SeriesDate AcquisitionDate ContentDate")
TIMES = _names("StudyTime SeriesTime AcquisitionTime ContentTime")

# Retain Device Identity Option, Retain Patient Characteristics Option.
DEVICE = _names("StationName DeviceSerialNumber GantryID")
CHARACTERISTICS = _names("PatientSex PatientAge PatientSize PatientWeight")

# Pixels may go only of what nothing is drawn into: CT, MR, PET, their enhanced forms, and segmentations.
PICTURES = _names("""
    1.2.840.10008.5.1.4.1.1.2 1.2.840.10008.5.1.4.1.1.2.1 1.2.840.10008.5.1.4.1.1.4 1.2.840.10008.5.1.4.1.1.4.1
    1.2.840.10008.5.1.4.1.1.128 1.2.840.10008.5.1.4.1.1.130 1.2.840.10008.5.1.4.1.1.66.4 1.2.840.10008.5.1.4.1.1.66.7
""")

# By what somebody or some place could be known: looked for in everything that is written.
IDENTITY = _names("""
    PatientID OtherPatientIDs IssuerOfPatientID PatientBirthDate PatientAddress PatientTelephoneNumbers
    AccessionNumber StudyID StudyDescription SeriesDescription ProtocolName AdmissionID RequestedProcedureID
    RequestedProcedureDescription ScheduledProcedureStepID PerformedProcedureStepID PerformedProcedureStepDescription
    InstitutionName InstitutionAddress InstitutionalDepartmentName ImageComments PatientComments
    AdditionalPatientHistory MilitaryRank CountryOfResidence MedicalRecordLocator
""")
