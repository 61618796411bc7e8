"""The workflow's states: what is missing, what may run, what a change has invalidated.  No Qt, no scene."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("slicer", reason="scene needs slicer-core")

from FluoroGuideLib.scene.workflow import SECTIONS, Facts, next_section, states

PLANNED = Facts(volume=True, plan_points=2)
LOADED = dataclasses.replace(PLANNED, xrays=("ok", "ok"))
REGISTERED = dataclasses.replace(LOADED, verdict="pass")
LOCATED = dataclasses.replace(REGISTERED, needle=True)


@pytest.mark.parametrize(("facts", "where", "text"), [
    (Facts(ready=False), "plan", "The module is not ready yet."),
    (Facts(), "plan", "Choose the patient's CT volume."),
    (Facts(volume=True, plan_points=1), "plan", "Place the planned needle: its entry, then its target."),
    (dataclasses.replace(PLANNED, level=True), "plan", "Confirm the level: say that the vertebrae were counted."),
    (PLANNED, "xray", "Load X-ray A."),
    (dataclasses.replace(PLANNED, xrays=("ok", "no geometry")), "xray", "X-ray B has no C-arm geometry: load its file with the Load button."),
    (dataclasses.replace(LOADED, same_xray=True), "xray", "X-ray A and B are the same image: choose two."),
    (dataclasses.replace(LOADED, volume_is_xray=True), "xray", "The volume and an X-ray are the same node: choose others."),
    (LOADED, "register", "Register the volume to the X-rays."),
    (REGISTERED, "guide", "Mark the needle's tip and shaft in both X-rays."),
    (LOCATED, "record", "Record the placement."),
])
def test_the_first_open_section_says_what_comes_next(facts, where, text):
    made = states(facts)
    assert next_section(made) == where
    assert made[where].text == text


def test_a_mismatch_blocks_everything_after_the_plan():
    made = states(dataclasses.replace(LOCATED, blocked="The plan is for the left side, the X-ray A shows the right side."))
    assert next_section(made) == "plan"
    for section in SECTIONS:
        if section != "xray":
            assert "left side" in made[section].missing, section


def test_a_change_makes_the_registration_and_what_follows_worthless():
    made = states(dataclasses.replace(LOCATED, changed=("The volume was changed after the registration.",)))
    assert made["register"].kind == "warn"
    assert made["register"].text == "The volume was changed after the registration. Register again."
    assert not made["register"].done
    assert made["guide"].missing == made["record"].missing == "The registration is old: register again."


@pytest.mark.parametrize(("facts", "missing"), [
    (dataclasses.replace(LOCATED, verdict="fail"), "The registration failed, so distances are not shown."),
    (dataclasses.replace(LOCATED, xrays=("ok", "")), "A second X-ray is needed: one view shows no depth."),
])
def test_guidance_needs_a_good_registration_and_two_views(facts, missing):
    made = states(facts)
    assert made["guide"].missing == missing
    assert made["record"].missing == missing


def test_nothing_starts_twice():
    assert states(dataclasses.replace(LOADED, running=True))["register"].missing == "A registration runs."


def test_each_text_is_a_sentence():
    for facts in (Facts(), PLANNED, LOADED, REGISTERED, LOCATED, dataclasses.replace(LOCATED, placements=2, locked=True)):
        for state in states(facts).values():
            for text in (state.missing, state.invalid, state.ready):
                assert not text or (not text[0].islower() and text.endswith(".")), text
