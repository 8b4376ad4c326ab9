"""Rules, models and destinations: what is accepted, and that every problem names its file and key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import dicom_node.catalog
from ai.digest import bundle_digest, weights_digest
from dicom_node.catalog import Catalog, load_catalog, rule_sop_classes
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.eligibility import Contrast
from dicom_node.domain.job import Priority
from dicom_node.domain.model import OutputKind
from dicom_node.domain.rule import FACTS, PREFERENCES, Operator, Preference, Values, match_rule
from dicom_node.errors import ConfigurationError
from dicom_node.settings import load_settings

CARD = """\
name = "organs"
version = "1.2.0"
title = "Organs"
manufacturer = "Test"
summary = "Marks two organs."
training = "not trained; for tests"
timeout_s = 60.0

[accepts]
modality = ["CT"]
min_slices = 20
max_slice_spacing_mm = 5

[[segments]]
output = "left organ"
label = "Left organ"
category = { value = "91723000", scheme = "SCT", meaning = "Anatomical Structure" }
type = { value = "39607008", scheme = "SCT", meaning = "Lung" }
laterality = { value = "7771000", scheme = "SCT", meaning = "Left" }
measurements = ["volume", "mean_attenuation"]
"""

SETTINGS = """\
models = ["models"]
[node]
ae_title = "AINODE"
[destinations.pacs]
host = "127.0.0.1"
port = 4242
ae_title = "PACS"
"""

RULE = """\
model = "organs"
destinations = ["pacs"]
[when]
Modality = "CT"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings folder with one model, one destination and one rule; the bundled models are out of sight."""
    monkeypatch.setattr(dicom_node.catalog, "BUNDLED", tmp_path / "none")
    bundle = tmp_path / "models" / "organs"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    (bundle / "models" / "model.pt").write_bytes(b"weights")
    outputs = {"pred": {"channel_def": {"0": "background", "1": "left organ", "2": "right organ"}}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": {"outputs": outputs}}))
    (bundle / "card.toml").write_text(CARD)
    (tmp_path / "settings.toml").write_text(SETTINGS)
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "organs.toml").write_text(RULE)
    return tmp_path


def load(home: Path) -> Catalog:
    return load_catalog(load_settings(home / "settings.toml", {}))


def problems(home: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(home)
    return caught.value.problems


def test_failures_are_reported_unless_the_rule_says_no(home: Path) -> None:
    assert [rule.report_failures for rule in load(home).rules] == [True]
    (home / "rules" / "b.toml").write_text(RULE.replace('"organs"', '"organs"\nreport_failures = false', 1))
    assert {rule.name: rule.report_failures for rule in load(home).rules} == {"organs": True, "b": False}


def test_reads_a_rule_its_model_and_its_destination(home: Path) -> None:
    catalog = load(home)
    (rule,) = catalog.rules
    assert (rule.name, rule.model, rule.destinations) == ("organs", "organs", ("pacs",))
    assert rule.priority is Priority.ROUTINE
    card = catalog.models["organs"]
    assert card.outputs == (OutputKind.SEG, OutputKind.SR)
    assert card.segments[0].laterality is not None
    assert card.segments[0].laterality.meaning == "Left"
    assert card.accepts.max_slice_spacing_mm == 5
    destination = catalog.destinations["pacs"]
    assert isinstance(destination, DimseDestination)
    assert (destination.ae_title, destination.calling_ae, destination.port) == ("PACS", "AINODE", 4242)


def test_every_form_of_a_condition_is_understood(home: Path) -> None:
    when = """\
SeriesDescription = { contains = "lung", not = ["scout", "topogram"] }
ProtocolName = { matches = "CT*Thorax" }
Modality = ["CT", "PT"]
slices = { at_least = 20, at_most = 2000 }
complete = true
ContrastBolusAgent = { exists = false }
KVP = 120
calling_ae = "CT1"
called_ae = ["AI_CHEST", "AI_LUNG"]
address = { within = ["10.1.0.0/16", "10.2.0.7"], not = "10.1.0.9" }
implementation = { contains = "SIEMENS" }
"""
    (home / "rules" / "organs.toml").write_text(RULE.replace('Modality = "CT"\n', when))
    (rule,) = load(home).rules
    assert [(c.key, c.operator) for c in rule.conditions] == [
        ("SeriesDescription", Operator.CONTAINS),
        ("SeriesDescription", Operator.NOT),
        ("ProtocolName", Operator.MATCHES),
        ("Modality", Operator.ONE_OF),
        ("slices", Operator.AT_LEAST),
        ("slices", Operator.AT_MOST),
        ("complete", Operator.ONE_OF),
        ("ContrastBolusAgent", Operator.EXISTS),
        ("KVP", Operator.ONE_OF),
        ("calling_ae", Operator.ONE_OF),
        ("called_ae", Operator.ONE_OF),
        ("address", Operator.WITHIN),
        ("address", Operator.NOT),
        ("implementation", Operator.CONTAINS),
    ]


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        (
            'Modalty = "CT"',
            "when.Modalty: is neither a DICOM keyword nor a fact of the series; did you mean 'Modality'?",
        ),
        ("slicess = 3", "did you mean 'slices'?"),
        ("slices = { atleast = 3 }", "when.slices: there is no comparison 'atleast'"),
        ('slices = { at_least = "3" }', "when.slices: at_least: give one number"),
        ("slices = { at_least = nan }", "finite"),
        ("Modality = { at_least = 3 }", "when.Modality: at_least: the values of this key are not numbers"),
        ('address = { within = "10.0.0.0/33" }', "when.address: within: '10.0.0.0/33' is no network"),
        ('calling_ae = { within = "10.0.0.0/8" }', "when.calling_ae: within: only address can lie in a network"),
        ("Modality = []", "when.Modality: one_of: the list is empty"),
        ("Modality = {}", "when.Modality: give a value"),
        ("Modality = { exists = 1 }", "when.Modality: exists: give one true or false"),
        ('complete = "yes"', "when.complete: one_of: give true or false"),
        ("Modality = 2024-01-01", "when.Modality: one_of: only text, numbers and true or false"),
        ('PixelData = "x"', "when.PixelData: holds no value that a rule can compare"),
        ("", "when: name at least one condition"),
        ("[whn]", "whn: there is no such key"),
        ("Modality = ", "not valid TOML"),
    ],
)
def test_a_bad_condition_is_refused_with_file_and_key(home: Path, when: str, problem: str) -> None:
    file = home / "rules" / "organs.toml"
    file.write_text(RULE.replace('Modality = "CT"\n', when))
    found = problems(home)
    assert any(line.startswith(f"{file}: ") and problem in line for line in found), found


def test_all_problems_are_told_at_once(home: Path) -> None:
    (home / "rules" / "a.toml").write_text(RULE.replace('"organs"', '"organ"').replace('"pacs"', '"archive"'))
    (home / "rules" / "b.toml").write_text('name = "a"\n' + RULE.replace('"organs"', '"organs"\npriority = "urgent"'))
    (home / "rules" / "c.toml").write_text('name = "organs"\n' + RULE)
    text = "\n".join(problems(home))
    assert "a.toml: model: there is no model 'organ'; did you mean 'organs'?" in text
    assert "a.toml: destinations: there is no destination 'archive'; there is pacs" in text
    assert "b.toml: priority: " in text
    assert "organs.toml: name: another rule file has the name 'organs' already" in text


def test_a_rule_that_is_switched_off_may_name_what_is_gone(home: Path) -> None:
    (home / "rules" / "old.toml").write_text("enabled = false\n" + RULE.replace('"organs"', '"retired"'))
    rule = load(home).rules[0]
    assert not rule.enabled
    match = match_rule(rule, {"Modality": ("CT",)})
    assert str(match) == "rule old did not match: the rule is enabled: no, it is switched off"


def test_what_identifies_a_person_is_compared_but_not_shown(home: Path) -> None:
    (home / "rules" / "organs.toml").write_text(
        RULE + 'PatientName = "TEST*"\nPatientID = "1"\nPatientPosition = "HFS"\n'
    )
    (rule,) = load(home).rules
    match = match_rule(rule, {"Modality": ("CT",), "PatientName": ("Doe^Jane",), "PatientID": ("4711",)})
    assert not match.matched
    assert "Doe" not in str(match)
    assert "4711" not in repr(match)
    assert "PatientPosition is HFS: no, not present" in str(match)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('output = "left organ"', 'output = "lft organ"', "no output 'lft organ'; did you mean 'left organ'?"),
        ("timeout_s = 60.0", "", "timeout_s: this key is needed"),
        ("timeout_s = 60.0", "timeout_s = 0", "timeout_s: "),
        ('"mean_attenuation"', '"maximum"', "segments.0.measurements.1: "),
        ('value = "39607008"', 'value = "39607008-and-much-more"', "segments.0.type.value: "),
        ("min_slices", "minslices", "accepts.minslices: there is no such key"),
        (
            "[accepts]",
            "[volume]\nEchoNumber = 1\n[accepts]",
            "'EchoNumber' tells no volumes apart; did you mean 'EchoNumbers'",
        ),
        (
            "[accepts]",
            "[volume]\nPatientID = 1\n[accepts]",
            "'PatientID' tells no volumes apart; StackID, EchoNumbers, ",
        ),
    ],
)
def test_a_bad_card_is_refused_with_file_and_key(home: Path, old: str, new: str, problem: str) -> None:
    file = home / "models" / "organs" / "card.toml"
    file.write_text(CARD.replace(old, new, 1))
    found = problems(home)
    assert any(line.startswith(f"{file}: ") and problem in line for line in found), found


def test_a_card_says_which_of_several_volumes_it_takes(home: Path) -> None:
    file = home / "models" / "organs" / "card.toml"
    volume = '[volume]\nDiffusionBValue = 0\nEchoTime = 4.6\nTriggerTime = "last"\n'
    file.write_text(CARD.replace("[accepts]", f"{volume}[accepts]", 1))
    assert load(home).models["organs"].volume == {"DiffusionBValue": 0, "EchoTime": 4.6, "TriggerTime": "last"}


def test_two_models_of_one_name_are_refused(home: Path) -> None:
    shutil.copytree(home / "models" / "organs", home / "models" / "zorgans")
    assert any("zorgans" in p and "a model 'organs' already" in p for p in problems(home))


def test_a_missing_folder_is_named(home: Path) -> None:
    (home / "rules" / "organs.toml").unlink()
    (home / "rules").rmdir()
    shutil.rmtree(home / "models")
    found = problems(home)
    assert any("settings.toml: rules: " in p for p in found)
    assert any("settings.toml: models: " in p for p in found)


def test_no_rule_at_all_is_allowed(home: Path) -> None:
    (home / "rules" / "organs.toml").unlink()
    assert load(home).rules == ()


def test_the_digest_changes_with_every_byte_and_name_and_not_with_the_place(home: Path) -> None:
    bundle = home / "models" / "organs"
    before, weights = bundle_digest(bundle), weights_digest(bundle)
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert bundle_digest(bundle) == before
    moved = Path(shutil.move(bundle, home / "elsewhere"))
    assert bundle_digest(moved) == before
    (moved / "LICENSE").write_text("")
    assert bundle_digest(moved) != before
    assert weights_digest(moved) == weights
    (moved / "models" / "model.pt").write_bytes(b"weightz")
    assert weights_digest(moved) != weights


def test_the_bundled_rule_example_is_valid(home: Path) -> None:
    example = Path(dicom_node.catalog.__file__).parents[1] / "deploy" / "rules" / "chest_ct.toml"
    text = example.read_text().replace('"chest_ct"', '"organs"')
    (home / "rules" / "organs.toml").write_text(text)
    (rule,) = load(home).rules
    chest: dict[str, Values] = {"Modality": ("CT",), "slices": (275,), "slice_spacing_mm": (1.0,), "complete": (True,)}
    assert match_rule(rule, chest).matched
    assert not match_rule(rule, {**chest, "BodyPartExamined": ("Head",)}).matched
    assert not match_rule(rule, {**chest, "slices": (19,)}).matched


def test_the_documentation_names_every_fact_and_comparison_and_its_example_is_valid(home: Path) -> None:
    text = (Path(dicom_node.catalog.__file__).parents[1] / "docs" / "rules.md").read_text()
    assert [fact for fact in FACTS if f"| `{fact}` |" not in text] == []
    assert [operator for operator in Operator if f"{operator.value} = " not in text] == []
    example = text.split("```toml")[1].split("```")[0]
    (home / "rules" / "organs.toml").write_text(example.replace('model = "chest_ct"', 'model = "organs"'))
    assert load(home).rules[0].name == "chest_ct"


DETECTION = """\
[[detections]]
output = "nodule"
label = "Nodule"
category = { value = "49755003", scheme = "SCT", meaning = "Morphologically Abnormal Structure" }
type = { value = "27925004", scheme = "SCT", meaning = "Nodule" }
region = { value = "39607008", scheme = "SCT", meaning = "Lung" }
min_score = 0.4
max_count = 10
measurements = ["volume", "long_axis", "short_axis", "mean_diameter"]
within = ["left organ"]
derive = ["zone", "lung_rads_2022", "fleischner_2017", "tnm_t_size", "brock"]

[detections.accepts]
max_slice_spacing_mm = 3.0
kernels = ["^B[3-7]", "LUNG"]
contrast = "without"
min_age_years = 18

[detections.classes.attenuation]
concept = { value = "112118", scheme = "DCM", meaning = "Density" }

[detections.classes.attenuation.answers]
solid = { value = "SOLID", scheme = "99TEST", meaning = "Solid" }
part-solid = { value = "PART-SOLID", scheme = "99TEST", meaning = "Part-solid" }
ground-glass = { value = "112120", scheme = "DCM", meaning = "Ground glass opacity" }
"""


def detecting(home: Path, was: str = "", now: str = "") -> Path:
    assert was in DETECTION
    (home / "models" / "organs" / "card.toml").write_text(f"{CARD}\n{DETECTION.replace(was, now, 1)}")
    return home


def test_a_card_with_detections_is_read_whole(home: Path) -> None:
    (detection,) = load(detecting(home)).models["organs"].detections
    assert (detection.name, detection.min_score, detection.max_count) == ("Nodule detection", 0.4, 10)
    assert detection.accepts.kernels == ("^B[3-7]", "LUNG")
    assert detection.accepts.contrast is Contrast.WITHOUT
    assert detection.accepts.modality == ()
    assert detection.classes["attenuation"].answers["ground-glass"].value == "112120"
    assert detection.derive[1] == "lung_rads_2022"
    assert detection.within == ("left organ",)


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        (
            '["left organ"]',
            '["left orgam"]',
            "detections.0.within: the card has no segment with the output 'left orgam'",
        ),
        ('output = "nodule"', 'output = "left organ"', "detections.0.output: 'left organ' is used twice"),
        ("min_score = 0.4", "min_score = 1.4", "detections.0.min_score"),
        ("max_count = 10", "max_count = 300", "detections.0.max_count"),
        ('"long_axis"', '"longest_axis"', "detections.0.measurements.1"),
        ('"lung_rads_2022"', '"lung_rads"', "detections.0.derive.1"),
        ('["^B[3-7]", "LUNG"]', '["^B[3-7"]', "detections.0.accepts.kernels.0: is no regular expression"),
        ('"without"', '"perhaps"', "detections.0.accepts.contrast"),
        ("solid =", "massive =", "classes.attenuation.answers: 'massive' is none of solid, part-solid, ground-glass"),
        ("attenuation]", "density]", "detections.0.derive: needs classes.attenuation"),
        ('within = ["left organ"]', "", "detections.0.derive: zone needs the lungs"),
    ],
)
def test_what_does_not_fit_on_a_card_with_detections_names_its_key(home: Path, was: str, now: str, said: str) -> None:
    detecting(home, was, now)
    if was == "attenuation]":
        file = home / "models" / "organs" / "card.toml"
        file.write_text(file.read_text().replace("classes.attenuation.answers", "classes.density.answers"))
    assert any(said in problem for problem in problems(home)), problems(home)


def test_a_grade_needs_the_measurement_that_it_grades(home: Path) -> None:
    card = CARD.replace('measurements = ["volume"', 'derive = ["opacification_grade"]\nmeasurements = ["volume"')
    (home / "models" / "organs" / "card.toml").write_text(card)
    assert problems(home) == [
        f"{home / 'models' / 'organs' / 'card.toml'}: segments.0.derive: opacification_grade needs the measurement "
        "opacification"
    ]


def test_a_card_names_an_output(home: Path) -> None:
    (home / "models" / "organs" / "card.toml").write_text(CARD[: CARD.index("[[segments]]")])
    assert any("give [[segments]], [[detections]]" in problem for problem in problems(home))


OF_ALL = """
[[classifications]]
output = "density"
concept = {value = "D", scheme = "99T", meaning = "Density"}
answers = {A = {value = "A", scheme = "99T", meaning = "Fatty"}}
[[values]]
output = "age"
concept = {value = "AGE", scheme = "99T", meaning = "Age"}
unit = {value = "a", scheme = "UCUM", meaning = "year"}
[[points]]
output = "apex"
label = "Apex of the heart"
category = {value = "91723000", scheme = "SCT", meaning = "Anatomical Structure"}
type = {value = "64054004", scheme = "SCT", meaning = "Apex of heart"}
corner_mm = 10
[changes]
whether_raw = true
pixdim = [1.0, 1.0, 2.5]
"""


def test_a_card_of_classes_numbers_and_points_is_read_whole(home: Path) -> None:
    file = home / "models" / "organs" / "card.toml"
    file.write_text(CARD[: CARD.index("[[segments]]")] + OF_ALL)

    card = load(home).models["organs"]

    assert card.classifications[0].answers["A"].meaning == "Fatty"
    assert (card.values[0].output, card.values[0].unit.value) == ("age", "a")
    assert (card.points[0].type.meaning, card.points[0].corner_mm) == ("Apex of heart", 10.0)
    assert card.changes == {"whether_raw": True, "pixdim": [1.0, 1.0, 2.5]}


def test_a_card_names_no_point_twice(home: Path) -> None:
    point = OF_ALL[OF_ALL.index("[[points]]") : OF_ALL.index("[changes]")]
    (home / "models" / "organs" / "card.toml").write_text(CARD + point + point)
    assert [problem.rsplit(": ", 1)[-1] for problem in problems(home)] == [
        "'apex' is used twice",
        "'Apex of the heart' is used twice",
    ]


REGISTERS = """
[registration]
fixed = "before"
moving = "after"
max_folded_percent = 0.5
"""


def test_a_rule_of_a_model_that_registers_names_both_series_the_fixed_one_first(home: Path) -> None:
    (home / "models" / "organs" / "card.toml").write_text(CARD[: CARD.index("[[segments]]")] + REGISTERS)
    rule = home / "rules" / "organs.toml"
    before, after = "[inputs.before]\nModality = 'CT'\n", "[inputs.after]\nModality = 'CT'\n"
    for inputs in ("", after + before, before):
        rule.write_text(RULE + inputs)
        assert problems(home) == [
            f"{rule}: inputs: organs registers two series; it needs [inputs.before], then [inputs.after]"
        ]

    rule.write_text(RULE + before + after)
    card = load(home).models["organs"]

    assert card.registration is not None
    assert (card.registration.roles, card.registration.max_folded_percent) == (("before", "after"), 0.5)
    assert [kind.value for kind in card.outputs] == ["seg", "sr", "registration", "deformation"]


def test_a_series_is_not_registered_onto_itself(home: Path) -> None:
    same = REGISTERS.replace("after", "before")
    (home / "models" / "organs" / "card.toml").write_text(CARD + same)
    assert any("a series has no registration with itself" in problem for problem in problems(home))


MAP = """
[[maps]]
output = "denoised"
label = "Denoised CT"
quantity = { value = "112031", scheme = "DCM", meaning = "Attenuation Coefficient" }
unit = { value = "[hnsf'U]", scheme = "UCUM", meaning = "Hounsfield unit" }
slope = 2000.0
intercept = -1000.0
window = [40, 400]
"""


def test_a_card_says_what_the_values_of_an_image_are(home: Path) -> None:
    file = home / "models" / "organs" / "card.toml"
    file.write_text(CARD[: CARD.index("[[segments]]")] + MAP)

    card = load(home).models["organs"]

    (made,) = card.maps
    assert (made.quantity.value, made.unit.value, made.slope, made.window) == ("112031", "[hnsf'U]", 2000.0, (40, 400))
    assert [kind.value for kind in card.outputs] == ["seg", "sr", "pm"]
    for wrong, why in (("slope = 0", "makes one value of all"), ("window = [40, 0]", "greater than 0")):
        key = wrong.split(" = ")[0]
        lines = [wrong if line.startswith(key) else line for line in MAP.splitlines()]
        file.write_text(CARD[: CARD.index("[[segments]]")] + "\n".join(lines) + "\n")
        assert any(f"maps.0.{key}" in problem and why in problem for problem in problems(home)), problems(home)


@pytest.mark.parametrize("value", ['"$open(1)"', '"@network"', '["%other::key"]'])
def test_nothing_on_a_card_is_an_expression(home: Path, value: str) -> None:
    (home / "models" / "organs" / "card.toml").write_text(CARD + f"[changes]\ndevice = {value}\n")
    assert any("changes.device" in problem and "is an expression" in problem for problem in problems(home))


def test_a_card_and_its_bundle_name_the_same_detections_and_answers(home: Path) -> None:
    metadata = home / "models" / "organs" / "configs" / "metadata.json"
    found = {"format": "instances", "detects": ["mass"], "classes": {"attenuation": ["solid", "liquid"]}}
    metadata.write_text(json.dumps({"network_data_format": {"outputs": {"found": found}}}))
    said = "\n".join(problems(detecting(home)))
    assert "detections.0.output: the bundle does not detect 'nodule'" in said
    assert "detections.0.classes.attenuation.answers: the bundle also answers 'liquid'" in said


def test_a_shadow_needs_no_destination_and_sends_to_none(home: Path) -> None:
    rule = home / "rules" / "chest.toml"
    rule.write_text(RULE.replace('destinations = ["pacs"]', ""))
    with pytest.raises(ConfigurationError, match="name at least one, or say shadow = true"):
        load(home)
    for more in ("shadow = true", 'shadow = true\ndestinations = ["pacs"]'):
        rule.write_text(RULE.replace('destinations = ["pacs"]', more))
        found = next(each for each in load(home).rules if each.name == "chest")
        assert (found.shadow, found.destinations) == (True, ())


STUDY_RULE = """\
model = "organs"
destinations = ["pacs"]
wait_s = 600
[inputs.late]
SeriesDescription = { contains = "venous" }
[inputs.early]
SeriesDescription = { contains = "arterial" }
SOPClassUID = "1.2.3"
prefer = ["newest", "thinnest"]
"""


def test_a_rule_may_want_several_series_in_the_order_they_are_written(home: Path) -> None:
    (home / "rules" / "organs.toml").write_text(STUDY_RULE)
    (rule,) = load(home).rules
    assert [role.name for role in rule.inputs] == ["late", "early"]
    assert (rule.wait_s, rule.conditions) == (600, ())
    assert rule.inputs[0].prefer == PREFERENCES
    assert rule.inputs[1].prefer == (Preference.NEWEST, Preference.THINNEST)
    assert rule_sop_classes(load_settings(home / "settings.toml", {})) == {"1.2.3"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('SeriesDescription = { contains = "venous" }', "", "inputs.late: name at least one condition"),
        ('contains = "venous"', "at_least = 3", "inputs.late.SeriesDescription: at_least"),
        ('"newest", ', '"fattest", ', "inputs.early.prefer: there is no 'fattest'; use thinnest"),
        ("wait_s = 600", "wait_s = 0", "wait_s: "),
    ],
)
def test_a_bad_role_is_refused_with_its_key(home: Path, old: str, new: str, problem: str) -> None:
    (home / "rules" / "organs.toml").write_text(STUDY_RULE.replace(old, new))
    assert any(problem in line for line in problems(home)), problems(home)


def test_only_a_rule_of_several_series_waits(home: Path) -> None:
    (home / "rules" / "organs.toml").write_text(f"wait_s = 60\n{RULE}")
    assert any("wait_s: only a rule with [inputs.ROLE] waits" in line for line in problems(home))
