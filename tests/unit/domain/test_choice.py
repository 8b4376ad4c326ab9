"""A destination gets what it takes, and something in place of what it does not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dicom_node.domain.choice import SOP_CLASSES, STAND_INS, choose, instead_of, report_form
from dicom_node.domain.delivery import DimseDestination
from dicom_node.domain.encoding import is_plain
from dicom_node.domain.model import OutputKind as K
from dicom_node.domain.profile import EXPLICIT, OFFERS, Profile
from dicom_node.domain.uids import AETitle

PACS = DimseDestination(name="pacs", host="pacs", port=104, ae_title=AETitle("PACS"), calling_ae=AETitle("AINODE"))
OUTPUTS = (K.SEG, K.PM, K.SR)


def profile(refused: Collection[K], where: str = PACS.where) -> Profile:
    refuses = {SOP_CLASSES[kind] for kind in refused}
    accepted = {o.sop_class_uid: () if o.sop_class_uid in refuses else (EXPLICIT,) for o in OFFERS}
    return Profile(where, datetime(2026, 11, 27, tzinfo=UTC), accepted, (), "", "")


@pytest.mark.parametrize(
    ("refused", "gets"),
    [
        ((), {K.SEG, K.PM, K.SR}),
        ((K.SEG,), {K.RTSTRUCT, K.OVERLAY, K.PM, K.SR}),
        ((K.SEG, K.OVERLAY), {K.RTSTRUCT, K.CAPTURES, K.PM, K.SR}),
        ((K.SEG, K.RTSTRUCT), {K.OVERLAY, K.PM, K.SR}),
        ((K.PM,), {K.SEG, K.GREY, K.SC, K.SR}),
        ((K.SR,), {K.SEG, K.PM, K.PDF}),
        ((K.SR, K.PDF), {K.SEG, K.PM, K.SC}),
        ((K.SEG, K.PM, K.SR, K.RTSTRUCT, K.OVERLAY, K.PDF), {K.CAPTURES, K.GREY, K.SC}),
    ],
)
def test_what_is_refused_has_a_stand_in_that_is_taken(refused: tuple[K, ...], gets: set[K]) -> None:
    choice = choose(PACS, OUTPUTS, profile(refused))
    assert choice.kinds == gets
    assert set(choice.instead) == set(refused) & set(OUTPUTS)
    assert choice.why == ("as it said on 2026-11-27" if refused else "")


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ((), "grey pictures (Multi-frame Grayscale Word SC), of images that a model made only; picture (SC)"),
        ((K.GREY,), "picture (SC)"),
        (
            (K.SC,),
            "grey pictures (Multi-frame Grayscale Word SC), of images that a model made only; "
            "nothing of what spoke for detections",
        ),
        ((K.GREY, K.SC), "nothing: it takes nothing that could stand in for it"),
    ],
)
def test_what_is_said_to_go_in_place_of_maps_holds_for_models_that_make_no_images(
    refused: tuple[K, ...], said: str
) -> None:
    (maps,) = (offer for offer in OFFERS if K.PM in offer.kinds)
    assert instead_of(maps, profile((K.PM, *refused))) == said


def test_what_has_no_stand_in_stays_and_fails_where_everybody_sees_it() -> None:
    everything = tuple(SOP_CLASSES)
    assert choose(PACS, OUTPUTS, profile(everything)).kinds == set(OUTPUTS)
    assert choose(PACS, (K.KOS,), profile((K.KOS,))).kinds == {K.KOS}


def test_who_is_told_that_there_is_nothing_is_told_in_a_form_that_it_takes() -> None:
    assert report_form(PACS, None) == report_form(PACS, profile(())) == K.SR
    assert report_form(PACS, profile((K.SR,))) == K.PDF
    assert report_form(PACS, profile((K.SR, K.PDF))) == K.SC
    assert report_form(PACS, profile(tuple(SOP_CLASSES))) == K.SR, "it fails where everybody sees it"
    pictures = replace(PACS, objects=frozenset({K.SEG, K.SC}))
    assert report_form(pictures, None) == K.SC
    assert report_form(pictures, profile((K.SC,))) == K.SR
    silent = choose(replace(PACS, objects=frozenset({K.SEG})), OUTPUTS, profile((K.SR,)))
    assert silent.of({K.SR, K.PDF}) == {K.PDF}
    assert silent.of({K.SEG, K.SR}) == {K.SEG}


def test_settings_decide_before_the_profile_and_another_peers_profile_does_not() -> None:
    named = replace(PACS, objects=frozenset({K.SEG, K.PDF}))
    choice = choose(named, OUTPUTS, profile((K.SEG,)))
    assert (set(choice.kinds), choice.why) == ({K.SEG, K.PDF}, "as its settings say")
    assert choose(PACS, OUTPUTS, profile((K.SEG,), "OTHER at other:104")).kinds == set(OUTPUTS)
    assert choose(PACS, OUTPUTS, None).kinds == set(OUTPUTS)


def test_every_kind_that_a_card_can_name_is_negotiated() -> None:
    assert set(SOP_CLASSES) == {kind for kind in K if is_plain(kind)} | {K.REJECTION}


@pytest.mark.parametrize("kind", STAND_INS)
def test_nothing_stands_in_for_itself_in_the_end(kind: K) -> None:
    reached: set[K] = set()
    todo = {kind}
    while todo:
        todo = {stand_in for each in todo for role in STAND_INS.get(each, ()) for stand_in in role} - reached
        reached |= todo
    assert kind not in reached
