"""The codes that this node itself writes; those of a model's outputs are on its card.

SNOMED CT codes are those of the DICOM context groups. What has no code there is in a scheme of our own, named in
Coding Scheme Identification (0008,0110) of every object that uses it (PS3.3 C.12.1.1.1, PS3.16 8.2: private designators
start with 99).
"""

from __future__ import annotations

from dicom_node.domain.finding import Code

LOCAL_SCHEME = "99DICOMNODE"
LOCAL_SCHEME_NAME = "dicom-node local codes"
LOCAL_SCHEME_RESPONSIBLE = "dicom-node"

# Units (UCUM)
MILLIMETER = Code("mm", "UCUM", "millimeter")
SQUARE_MILLIMETER = Code("mm2", "UCUM", "square millimeter")
CUBIC_MILLIMETER = Code("mm3", "UCUM", "cubic millimeter")
HOUNSFIELD_UNIT = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")

# Derivations (PS3.16 CID 7464) and why there is no value (CID 42)
MEAN = Code("373098007", "SCT", "Mean")
MINIMUM = Code("255605001", "SCT", "Minimum")
DEVIATION = Code("386136009", "SCT", "Standard deviation")
MAXIMUM = Code("56851009", "SCT", "Maximum")
PERCENTILE_15 = Code("PERCENTILE-15", LOCAL_SCHEME, "15th percentile")
NOT_ATTEMPTED = Code("114007", "DCM", "Measurement not attempted")

# What is measured
VOLUME = Code("118565006", "SCT", "Volume")
AREA = Code("42798000", "SCT", "Area")
LONG_AXIS = Code("103339001", "SCT", "Long axis")
SHORT_AXIS = Code("103340004", "SCT", "Short axis")
DIAMETER = Code("81827009", "SCT", "Diameter")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
SOLID_DIAMETER = Code("SOLID-DIAMETER", LOCAL_SCHEME, "Diameter of solid part")
SURFACE_DISTANCE = Code("SURFACE-DISTANCE", LOCAL_SCHEME, "Distance to lung surface")
EMPHYSEMA_INDEX = Code("LAA-950", LOCAL_SCHEME, "Emphysema index (below -950 HU)")
OPACIFICATION = Code("OPACIFICATION", LOCAL_SCHEME, "Opacified share of lung")
DISPLACEMENT = Code("DISPLACEMENT", LOCAL_SCHEME, "Displacement by registration")
FOLDED = Code("FOLDED", LOCAL_SCHEME, "Share of the body that the registration folds")
PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")

# Where it lies (PS3.16 CID 6171)
LUNG = Code("39607008", "SCT", "Lung")
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
ZONE = Code("LUNG-ZONE", LOCAL_SCHEME, "Third of the height of the lung")
UPPER_ZONE = Code("281392002", "SCT", "Upper zone of lung")
MIDDLE_ZONE = Code("281393007", "SCT", "Middle zone of lung")
LOWER_ZONE = Code("281394001", "SCT", "Lower zone of lung")
# SCT: of either lung (CID 6170), of the left, of the right
UPPER_LOBES = frozenset({"45653009", "44714003", "42400003"})
OTHER_LOBES = frozenset({"72481006", "40020002", "90572001", "41224006", "266005"})  # middle; lower

# What is calculated
LUNG_RADS = Code("LUNG-RADS-2022", LOCAL_SCHEME, "Lung-RADS v2022 category (calculated)")
FLEISCHNER = Code("FLEISCHNER-2017", LOCAL_SCHEME, "Fleischner 2017 size class (calculated)")
TNM_T = Code("TNM-T-SIZE", LOCAL_SCHEME, "TNM T category by size alone")
BROCK = Code("BROCK", LOCAL_SCHEME, "Brock model of malignancy (calculated)")
OPACIFICATION_GRADE = Code("OPACITY-GRADE", LOCAL_SCHEME, "Grade of opacification (calculated)")

# What an order may carry (Acquisition Context, PS3.3 C.7.6.14)
FAMILY_HISTORY = Code("FAMILY-LUNG-CA", LOCAL_SCHEME, "Family history of lung cancer")
YES, NO = Code("373066001", "SCT", "Yes"), Code("373067005", "SCT", "No")


def lung_rads_category(category: str) -> Code:
    """Code of a Lung-RADS category such as ``4A``."""
    return Code(f"LR2022-{category}", LOCAL_SCHEME, f"Lung-RADS {category}")


def opacification_grade(grade: int) -> Code:
    """Code of a grade of opacification, 0 to 5."""
    return Code(f"OPACITY-{grade}", LOCAL_SCHEME, f"Grade {grade} of 5")


def fleischner_class(short: str, words: str) -> Code:
    """Code of a size class of the Fleischner Society, e.g. ``S1-6-8``."""
    return Code(f"FL2017-{short}", LOCAL_SCHEME, words)


def t_category(category: str) -> Code:
    """Code of a T category by size, e.g. ``T1a``."""
    return Code(f"TNM-{category}", LOCAL_SCHEME, f"{category} by size")


def brock_model(words: str) -> Code:
    """Code of the Brock model that was used, e.g. ``full model 2b``."""
    return Code(f"BROCK-{words.split()[-1]}", LOCAL_SCHEME, f"Brock {words}")
