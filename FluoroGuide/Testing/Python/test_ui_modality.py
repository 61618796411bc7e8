"""The box that says what the volume is: recognised by tags or values, overridden by the user, and a registration made before is then old."""

from __future__ import annotations

import pytest

from module_case import fill, register

pytest_plugins = ["module_fixture"]


def _texts(box):
    return [box.itemText(i) for i in range(box.count)]


def _choose(widget, value):
    box = widget.ui.fgModalityBox
    box.setCurrentIndex(box.findData(value))
    widget.panel.refresh()


def test_without_a_volume_there_is_nothing_to_say(widget):
    box = widget.ui.fgModalityBox
    assert not box.enabled
    assert _texts(box) == ["automatic", "CT", "cone-beam CT", "MR"]


@pytest.mark.parametrize(("shift", "seen"), [(0, "CT"), (900, "MR")])  # fill() draws values from -900: shifted, none lies below zero
def test_the_values_tell_where_no_tags_do(widget, shift, seen):
    import slicer

    volume, _, _ = fill(widget)
    slicer.util.arrayFromVolume(volume)[:] += shift
    slicer.util.arrayFromVolumeModified(volume)
    widget.panel.refresh()
    assert widget.ui.fgModalityBox.currentText == f"automatic ({seen})"


def test_what_the_user_says_reaches_the_engine_and_is_taken_back(widget):
    from FluoroGuideLib.scene.raw_volumes import MODALITY, raw_volume

    volume, _, _ = fill(widget)
    assert raw_volume(volume).modality == ""
    for value in ("MR", "CBCT"):
        _choose(widget, value)
        assert volume.GetAttribute(MODALITY) == value
        assert raw_volume(volume).modality == value
    widget.panel.refresh()
    assert widget.ui.fgModalityBox.itemData(widget.ui.fgModalityBox.currentIndex) == "CBCT"
    _choose(widget, "")
    assert volume.GetAttribute(MODALITY) is None
    assert raw_volume(volume).modality == ""


def test_another_modality_makes_the_registration_old(widget):
    fill(widget)
    register(widget)
    assert not widget.panel.stale()
    before = widget.logic.session.registrar.handle(widget.panel.choices.volume)
    _choose(widget, "MR")
    assert widget.panel.stale()
    assert widget.logic.session.registrar.handle(widget.panel.choices.volume) is not before  # the engine is given it anew


def test_each_volume_keeps_what_was_said_of_it(widget):
    import slicer

    from FluoroGuideLib.scene.raw_volumes import said_modality

    first, _, _ = fill(widget)
    _choose(widget, "CBCT")
    widget.panel.choices.volume = other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Other")
    widget.panel.refresh()
    assert widget.ui.fgModalityBox.currentText == "automatic"  # no voxels yet
    assert said_modality(other) == ""
    assert said_modality(first) == "CBCT"
