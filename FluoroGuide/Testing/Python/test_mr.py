"""MR: reading, contrast, classes of tissue, verdicts, and MR to CBCT, on small phantoms and the real knee."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk

from FluoroGuideLib.anatomy.mr import SHELL_PER_MM, attenuation_from_mr, with_labels
from FluoroGuideLib.anatomy.mr_series import contrast_from_histogram, contrast_of, read_mr, recognise
from FluoroGuideLib.errors import FluoroGuideError
from FluoroGuideLib.evaluation.pseudo_mr import CONTRASTS, PseudoMrOptions, pseudo_mr
from FluoroGuideLib.geometry.carm import CArmView
from FluoroGuideLib.geometry.rigid import apply, perturb
from FluoroGuideLib.imaging.xray import XrayImage
from FluoroGuideLib.registration.mr import FLOOR_MM, PLANNED, WHOLE_LOOK, mr_part
from FluoroGuideLib.registration.register import Options, register
from FluoroGuideLib.registration.result import Registration
from FluoroGuideLib.registration.through_cbct import VolumeMatch, carried, checkerboard, register_volumes

SPACING = 2.5


@pytest.fixture(scope="module")
def ct() -> sitk.Image:
    """A body with a fat layer, a lung and an off-centre bone (cortex around marrow), HU; 67 x 57 x 40 voxels of 2.5 mm."""
    k, j, i = np.mgrid[:40, :57, :67]
    x, y, z = SPACING * (i - 33), SPACING * (j - 28), SPACING * (k - 20)
    hu = np.full(x.shape, -1000.0)
    body = (x / 60) ** 2 + (y / 48) ** 2
    hu[body < 1] = -100
    hu[body < 0.7] = 40
    hu[((x + 28) / 14) ** 2 + ((y + 6) / 20) ** 2 + (z / 30) ** 2 < 1] = -800
    bone = ((x - 8) / 17) ** 2 + ((y - 14) / 14) ** 2 + ((z - 4) / 21) ** 2
    hu[bone < 1] = 600
    hu[bone < 0.6] = 180
    hu[((x - 20) / 5) ** 2 + ((y + 18) / 5) ** 2 + ((z + 12) / 9) ** 2 < 1] = 500
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing([SPACING] * 3)
    image.SetOrigin([-33 * SPACING, -28 * SPACING, -20 * SPACING])
    return image


def made(ct: sitk.Image, contrast: str) -> tuple:
    options = PseudoMrOptions(contrast=contrast, pixel_mm=2.0, slice_mm=4.0, bias=0.1, distortion_mm=0.5)
    return pseudo_mr(ct, options, np.random.default_rng(3))


def at(image: sitk.Image, point: tuple) -> float:
    return float(image.GetPixel(image.TransformPhysicalPointToIndex(point)))


def test_knee_lies_as_its_tags_say(data_dir):
    """By hand from the first file's tags (instance 1), LPS mm.

    Image Position (-29.0364, -103.429, 56.2757): x = -29 is to the right.  Rows run along (-0.0218, 0.9995, 0.0224): to posterior.
    Columns run along (-0.1448, 0.0190, -0.9893): to the feet.  255 pixels of 0.625 mm down and along give the far corner of the slice:
      -29.0364 - 0.0218343 * 159.375 - 0.144772 * 159.375 = -55.589
     -103.429  + 0.999511  * 159.375 + 0.01901  * 159.375 =  58.898
       56.2757 + 0.0224019 * 159.375 - 0.989282 * 159.375 = -97.819
    The slices' normal, rows x columns, is (-0.9892, -0.0248, 0.1443): away from the left, so each next slice lies 4 mm further to the right
    if the positions say so; the 24th lies 92 mm along it: x = -29.0364 - 92 * 0.98922 = -120.045.
    """
    series = read_mr(data_dir / "mr_knee_mese" / "echo1")
    image = series.image
    assert image.GetSize() == (256, 256, 24)
    assert image.TransformIndexToPhysicalPoint((0, 0, 0)) == pytest.approx((-29.0364, -103.429, 56.2757), abs=1e-3)
    assert image.TransformIndexToPhysicalPoint((255, 255, 0)) == pytest.approx((-55.589, 58.898, -97.819), abs=0.01)
    assert image.TransformIndexToPhysicalPoint((0, 0, 23))[0] == pytest.approx(-120.045, abs=0.05)
    # big endian read right: the tags of the first file say that its largest pixel is 8019
    assert int(sitk.GetArrayViewFromImage(image)[0].max()) == 8019
    assert (series.contrast, series.contrast_from) == ("PD", "tags")  # TR 2450, TE 6.3 ms
    assert any("gaps of 1.0 mm" in c for c in series.caveats)  # thickness 3, spacing 4
    assert any("distortion" in c for c in series.caveats)
    assert recognise(data_dir / "mr_knee_mese" / "echo1") == ("MR", "")


@pytest.mark.parametrize(("facts", "wanted"), [
    ({"tr_ms": 550.0, "te_ms": 12.0, "sequence": "SE"}, "T1"),
    ({"tr_ms": 3500.0, "te_ms": 100.0, "sequence": "SE"}, "T2"),
    ({"tr_ms": 3500.0, "te_ms": 100.0, "sequence": "SE", "description": "t2_tse_fs sag"}, "T2 fat-suppressed"),
    ({"tr_ms": 2500.0, "te_ms": 30.0, "sequence": "SE"}, "PD"),
    ({"tr_ms": 4000.0, "te_ms": 60.0, "ti_ms": 160.0, "sequence": "SE\\IR"}, "STIR"),
    ({"image_type": "DERIVED\\PRIMARY\\DIXON\\WATER"}, "Dixon water"),
    ({}, ""),
])
def test_contrast_from_tags(facts, wanted):
    assert contrast_of(facts) == wanted


def test_contrast_from_histogram(ct):
    assert contrast_from_histogram(made(ct, "T1")[0]) == "T1"


@pytest.mark.parametrize("contrast", sorted(CONTRASTS))
def test_classes_of_tissue(ct, contrast):
    """Lung far below soft tissue, outside nothing; the thin dark layer of the bone above soft tissue where fat is bright."""
    mr, labels, _ = made(ct, contrast)
    volume = attenuation_from_mr(mr, {"DIXON_W": "Dixon water"}.get(contrast, contrast))
    array = sitk.GetArrayFromImage(volume.image)
    assert volume.modality == "MR"
    assert array.min() >= 0
    assert at(volume.image, (66.0, 52.0, 0.0)) == 0.0
    assert 0.016 < at(volume.image, (0.0, -30.0, 0.0)) < 0.023
    # in T2 the limit spares dark blood, so lung is only partly taken for air
    assert at(volume.image, (-28.0, -6.0, 0.0)) < (0.016 if contrast == "T2" else 0.009)
    refined = with_labels(volume, labels)
    inside = sitk.GetArrayFromImage(refined.parts) == 1
    assert sitk.GetArrayFromImage(refined.image)[inside].mean() > 1.1 * 0.02
    assert sitk.GetArrayFromImage(refined.image).max() >= 0.95 * SHELL_PER_MM
    assert sitk.GetArrayFromImage(refined.uncertainty).max() > 0
    assert mr_part(refined, "auto", np.array([8.0, 14.0, 4.0])) == 1
    assert mr_part(volume, "auto", np.array([8.0, 14.0, 4.0])) is None
    assert mr_part(refined, "auto", np.array([-60.0, -40.0, 0.0])) is None


def test_localizers_and_foreign_labels_are_refused(ct, tmp_path):
    mr, labels, _ = made(ct, "T1")
    path = tmp_path / "two.nii.gz"
    sitk.WriteImage(mr[:, :, 10:12], str(path))
    with pytest.raises(FluoroGuideError, match="too few slices"):
        read_mr(path)
    with pytest.raises(FluoroGuideError, match="too few slices"):
        attenuation_from_mr(mr[:, :, 10:12])
    labels.SetOrigin([900.0, 0.0, 0.0])
    with pytest.raises(FluoroGuideError, match="outside the MR"):
        attenuation_from_mr(mr, labels=labels)


def test_modality_without_tags(ct, tmp_path):
    for name, image, wanted in (("a.nii.gz", ct, "CT"), ("b.nii.gz", made(ct, "T2")[0], "MR")):
        sitk.WriteImage(image, str(tmp_path / name))
        assert recognise(tmp_path / name)[0] == wanted
    assert "taken as MR" in recognise(tmp_path / "b.nii.gz")[1]


@pytest.fixture(scope="module")
def views() -> list[CArmView]:
    carm = {"sid_mm": 1000, "sod_mm": 700, "rows": 96, "columns": 96, "pixel_spacing_mm": (2.0, 2.0)}
    return [CArmView.from_angles(a, 0, **carm) for a in (0, 90)]


def test_registration_says_that_it_was_planned_on_mr(ct, views):
    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
    from FluoroGuideLib.registration.volume import MovingVolume

    truth = perturb(np.eye(4), np.r_[np.radians([2.0, -3.0, 1.0]), 4.0, -3.0, 5.0], np.zeros(3))
    projector = MovingVolume(attenuation_from_hu(ct)).projector(2.5)
    images = [XrayImage(projector.project(v, truth), np.ones((96, 96), bool), v, "x") for v in views]
    options = PseudoMrOptions(contrast="T1", pixel_mm=2.0, slice_mm=2.0, bias=0.1, distortion_mm=0.0)
    mr, labels, _ = pseudo_mr(ct, options, np.random.default_rng(3))
    volume = with_labels(attenuation_from_mr(mr, "T1"), labels)
    target = np.array([8.0, 14.0, 4.0])
    options = Options(search_limit_deg=0.0, search_reach_mm=20.0, threads=1)
    result = register(volume, images, np.eye(4), targets={"t": target}, options=options)
    # a body that is a cylinder says little about its axis z; how exact it is on anatomy is in the proof mr_registration
    assert np.linalg.norm((apply(result.pose, target) - apply(truth, target))[:2]) < 1.5
    assert result.facts["planned_on"] == "MR"
    assert any(r.startswith(PLANNED) for r in result.reasons)
    assert WHOLE_LOOK in result.reasons
    assert result.verdict != "pass"
    assert result.target_error({"t": target})[0].predicted_error_mm > 1.96 * FLOOR_MM
    assert result.to_dict()["planned_on"] == "MR"


def test_mr_to_cbct_and_on_to_the_xray(ct, views):
    mr, _, _ = pseudo_mr(ct, PseudoMrOptions(contrast="T2", pixel_mm=2.0, slice_mm=3.0, bias=0.1, distortion_mm=0.0), np.random.default_rng(5))
    target = np.array([8.0, 14.0, 4.0])
    start = perturb(np.eye(4), np.r_[np.radians([3.0, -4.0, 2.0]), 6.0, -5.0, 4.0], target)
    match = register_volumes(mr, ct, {"t": target}, initial=start)
    assert np.linalg.norm(match.points(target) - target) < 1.0  # MR and CBCT are of one space: the truth is no motion
    assert match.verdict != "fail"
    picture = checkerboard(mr, ct, match, target, half_mm=30.0)
    assert picture.shape == (120, 360)
    assert picture.std() > 10
    covariance = np.diag([1e-6] * 3 + [0.25] * 3)
    found = Registration(np.eye(4), "pass", (), (0.9, 0.9), covariance, np.zeros(3), tuple(views))
    known = dataclasses.replace(match, matrix=np.eye(4), covariance_mm2=0.75 * np.eye(3))
    both = carried(found, known)
    # 0.25 and 0.75 mm^2 per axis add to 1 mm^2 at the centre of rotation
    assert np.allclose(both.point_covariance(np.zeros(3)), np.eye(3))
    assert both.facts["planned_on"] == "MR"


def test_worse_of_both_verdicts_counts(views):
    found = Registration(np.eye(4), "pass", (), (0.9, 0.9), np.eye(6), np.zeros(3), tuple(views))
    match = VolumeMatch(np.eye(4), np.eye(3), 0.01, 0.0, "fail", ("no",))
    assert carried(found, match).verdict == "fail"


def test_other_anatomy_is_not_matched(ct):
    rng = np.random.default_rng(1)
    noise = sitk.GetImageFromArray(rng.normal(300, 100, (30, 40, 40)).astype(np.float32))
    noise.SetSpacing([3.0] * 3)
    noise.SetOrigin([-60.0, -60.0, -45.0])
    assert register_volumes(noise, ct, {"t": np.zeros(3)}, initial=np.eye(4)).verdict == "fail"


# ---- the same calls as CT: engine and command line -------------------------------------------------------------------
def test_the_engine_reads_mr_with_and_without_tags(ct):
    from FluoroGuideLib.engine import tasks
    from FluoroGuideLib.engine.volumes import BoneLabels, RawVolume

    mr, labels, _ = made(ct, "T1")
    geometry = mr.GetSpacing(), mr.GetOrigin(), mr.GetDirection()
    told = RawVolume(sitk.GetArrayFromImage(mr), *geometry, "MR", "x", "T2", {"thickness_mm": 3.0}).ready()
    assert (told.modality, told.contrast) == ("MR", "T2")
    assert any("gaps of 1.0 mm" in c for c in told.caveats)  # slices 4 mm apart, 3 mm thick
    guessed = RawVolume(sitk.GetArrayFromImage(mr), *geometry, "", "x").ready()
    assert (guessed.modality, guessed.contrast) == ("MR", "T1")
    assert guessed.caveats[0].startswith("The volume was taken as MR")
    hu = RawVolume(sitk.GetArrayFromImage(ct), ct.GetSpacing(), ct.GetOrigin(), ct.GetDirection(), "", "x").ready()
    assert hu.modality == "CT"
    bones = BoneLabels(labels, {1: "bone"})
    refined = tasks._with_labels(guessed, bones)
    assert refined.part_names == {1: "bone"}
    assert tasks._with_labels(guessed, bones) is refined  # kept for the next registration
    assert tasks._with_labels(hu, bones) is hu
    tasks.forget(bones)
    assert not tasks._refined


def test_command_line_through_cbct(ct, views, tmp_path, capsys, monkeypatch):
    """The MR lies 7, -4 and 9 mm beside the CBCT; how that is found is tested above, here what is made of it."""
    import json

    from FluoroGuideLib.anatomy.attenuation import attenuation_from_hu
    from FluoroGuideLib.cli import main
    from FluoroGuideLib.geometry.rigid import read_tfm
    from FluoroGuideLib.registration import through_cbct
    from FluoroGuideLib.registration.volume import MovingVolume

    shift, target = np.array([7.0, -4.0, 9.0]), np.array([8.0, 14.0, 4.0])
    mr, between = sitk.Cast(ct + 1000, sitk.sitkFloat32), np.eye(4)
    between[:3, 3] = shift
    mr.SetOrigin((np.array(ct.GetOrigin()) - shift).tolist())
    match = VolumeMatch(between, 0.25 * np.eye(3), 0.5, 0.0, "pass", ())
    monkeypatch.setattr(through_cbct, "register_volumes", lambda mr, cbct, targets: match)
    sitk.WriteImage(mr, str(tmp_path / "mr.nii.gz"))
    sitk.WriteImage(ct, str(tmp_path / "cbct.nii.gz"))
    truth = perturb(np.eye(4), np.r_[np.radians([2.0, -3.0, 1.0]), 4.0, -3.0, 5.0], np.zeros(3))
    projector = MovingVolume(attenuation_from_hu(ct)).projector(2.5)
    arguments = []
    for name, view in zip("AB", views, strict=True):
        picture = projector.project(view, truth)
        sitk.WriteImage(sitk.GetImageFromArray(np.round(4000 * np.exp(-picture)).astype(np.uint16)), str(tmp_path / f"{name}.png"))
        card = {"source_to_detector_mm": 1000, "source_to_isocenter_mm": 700, "primary_angle_deg": {"A": 0, "B": 90}[name],
                "secondary_angle_deg": 0, "angle_reference": "patient", "pixel_spacing_mm": [2.0, 2.0]}
        (tmp_path / f"{name}.json").write_text(json.dumps(card))
        arguments += ["--xray", str(tmp_path / f"{name}.png"), "--geometry", str(tmp_path / f"{name}.json")]
    (tmp_path / "targets.json").write_text(json.dumps([{"name": "t", "position_lps_mm": (target - shift).tolist()}]))
    run = ["register", "--volume", str(tmp_path / "mr.nii.gz"), "--modality", "mr", "--targets", str(tmp_path / "targets.json"), *arguments]
    assert main([*run, "--through", str(tmp_path / "cbct.nii.gz"), "--part", "whole", "--output", str(tmp_path / "out")]) in (0, 1)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["planned_on"], result["through"]) == ("MR", "CBCT")
    # 0.5 mm per axis: chi-square with three degrees of freedom, 95 %: 7.815, so 0.5 * sqrt(7.815) = 1.398 mm
    assert result["volume_to_volume_error_mm"] == pytest.approx(1.398, abs=0.03)
    assert result["targets"][0]["predicted_error_mm"] > result["volume_to_volume_error_mm"]
    assert np.linalg.norm(apply(np.array(result["pose_matrix"]), target - shift) - apply(truth, target)) < 1.0
    for name in ("checkerboard.png", "overlay_A.png", "overlay_B.png"):
        assert (tmp_path / "out" / name).is_file()
    assert np.allclose(read_tfm(tmp_path / "out" / "volume_to_volume.tfm"), between)
    assert main([*run, "--through", "x", "--bones", "y", "--bone", "1", "--output", str(tmp_path / "no")]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_only_a_labelled_bone_where_the_whole_mr_puts_it_passes(views):
    from FluoroGuideLib.anatomy.mr import MrVolume
    from FluoroGuideLib.registration.findings import Finding, told
    from FluoroGuideLib.registration.mr import judged_as_mr

    def judged(similarity, whole, findings=(), **facts):
        history = ({"stage": "1.5 mm", "similarity": [whole, 0.7]}, {"stage": "part", "similarity": [similarity] * 2})
        covariance = np.diag([1e-8] * 3 + [0.01] * 3)
        said = told(Finding(*f) for f in findings)
        found = Registration(
            np.eye(4), similarity=(similarity, 0.9), covariance=covariance, center_mm=np.zeros(3), views=tuple(views), history=history, facts=facts,
            **said,
        )
        return judged_as_mr(found, MrVolume(None, "MR", contrast="T2", caveats=("thick slices",)), {"t": np.zeros(3)})

    bone = {"part": "L4", "moved_against_surroundings_mm": 0.8, "checks": {"alone_mm": (0.4, 1.0), "level_ratio": 1.3}}
    good = judged(0.2, 0.6, [("similarity", "warn", "The X-ray and the volume look only partly alike (similarity 0.20).")], **bone)
    assert good.verdict == "pass"
    # 0.01 of the pose, 0.65^2 of the MR and (0.1 * 0.8)^2 of the motion: 0.439 mm^2 per axis; chi-square, three degrees, 95 %: 7.815
    assert good.reasons == (f"{PLANNED} (T2): predicted error {np.sqrt(0.4389 * 7.815):.1f} mm (95 %).", "thick slices")
    assert WHOLE_LOOK in judged(0.6, 0.6).reasons
    assert judged(0.6, 0.6).verdict == "warn"
    assert judged(0.2, 0.6, **{**bone, "moved_against_surroundings_mm": 5.0}).verdict == "warn"
    assert judged(0.2, 0.2, **bone).verdict == "fail"  # another part of the body
    assert judged(0.05, 0.6, **bone).verdict == "fail"
    assert judged(0.2, 0.6, **{**bone, "checks": {"alone_mm": (4.0, 1.0)}}).verdict == "fail"
    checks = bone["checks"]
    for level in ("fail", "warn"):
        flipped = judged(0.2, 0.6, [("mirrored", level, "A fits the volume better as its mirror image")], **bone)
        assert (flipped.verdict, flipped.facts["mr_findings"]) == (level, [f"{level}: mirrored"])
    for ratio, verdict in ((1.02, "warn"), (0.98, "fail")):
        again = "A pose 22 mm along the spine fits as well: is it the right vertebra?"
        found = judged(0.2, 0.6, [("level", verdict, again)], **{**bone, "checks": {**checks, "level_ratio": ratio, "level_mm": 22.0}})
        assert found.verdict == verdict
        assert found.reasons.count(again) == 1  # the engine's sentence is not said twice
    # whatever else the engine says warns, but for grey values that were turned over and for one view
    inverted, rival = ("polarity", "note", "The grey values of A were inverted."), ("rival", "warn", "Another pose, 9 mm away, fits almost as well.")
    assert judged(0.2, 0.6, [rival], **bone).verdict == "warn"
    assert judged(0.2, 0.6, [inverted], **bone).verdict == "pass"
    assert judged(0.2, 0.6, [rival, inverted], **bone).reasons[:2] == (rival[2], inverted[2])
    assert judged(0.2, 0.6, [("in-plane", "note", "in-plane only")], **bone, in_plane_only=True).verdict == "pass"
    assert judged(0.2, 0.6, [("whole", "note", "The L4 is not in the pictures.")], **bone).verdict == "warn"


def test_classes_of_a_real_lumbar_spine(data_dir):
    """T2 of a spine whose export added an offset to every value; labels of vertebral bodies."""
    folder = data_dir / "mr_lumbar_labelled"
    image, labels = (sitk.ReadImage(str(folder / f"VB2_05_{kind}.nii.gz"))[20:60, 60:300, 0:200] for kind in ("img", "labels"))
    volume = attenuation_from_mr(image, "T2")
    values = sitk.GetArrayFromImage(volume.image) / 0.02
    assert at(volume.image, (40.0, 295.0, 100.0)) == 0.0  # behind the back
    first, last = (np.mean(values[:, :, n] > 0.5) for n in (0, -1))
    assert min(first, last) > 0.3  # the scan's ends across the slices are not the skin
    bodies = sitk.GetArrayFromImage(sitk.Resample(labels, volume.image, sitk.Transform(), sitk.sitkNearestNeighbor)) > 0
    assert 0.95 < np.median(values[bodies]) < 1.3
    from scipy.ndimage import binary_dilation, binary_erosion

    rim = binary_dilation(bodies, iterations=2) & ~binary_erosion(bodies, iterations=1)
    # end plates and walls are found without the labels: many more dense voxels at the bodies' surface than in them
    assert np.mean(values[rim] > 1.3) > 4 * np.mean(values[binary_erosion(bodies, iterations=3)] > 1.3)
    assert np.mean(values[rim] > 1.3) > 0.15


def test_a_slab_narrower_than_the_body_goes_on_in_soft_tissue():
    """A sagittal series: 72 mm of a body that is wider, cut on both sides along x."""
    from FluoroGuideLib.anatomy.mr import SOFT, MrVolume
    from FluoroGuideLib.registration.mr import BESIDE_MM, MrMovingVolume, slab_axis

    k, j, _ = np.mgrid[:60, :60, :24]
    mu = np.where((abs(j - 30) < 20), SOFT, 0.0).astype(np.float32)  # 3 mm voxels: 117 mm deep, 180 mm high, 72 mm wide
    mu[20:40, 26:34, 8:16] = 2 * SOFT
    image = sitk.GetImageFromArray(mu)
    image.SetSpacing([3.0] * 3)
    image.SetOrigin([-34.5, -88.5, -88.5])
    volume = MrVolume(image, "MR", "slab", None, {}, image * 0.0, "T2", ())
    moving = MrMovingVolume(volume)
    assert slab_axis(image) == moving.slab_axis == 0
    wide = sitk.Image(image)
    wide.SetSpacing([8.0, 3.0, 3.0])
    assert slab_axis(wide) is None  # 192 mm
    assert at(moving.image, (-34.5 - BESIDE_MM / 2, 0.0, 0.0)) == pytest.approx(SOFT, rel=0.01)
    assert at(moving.image, (-34.5 - BESIDE_MM, 0.0, 0.0)) == 0.0
    assert at(moving.image, (1.5, 0.0, 0.0)) == pytest.approx(2 * SOFT)  # the scan itself is as it was
    carm = {"sid_mm": 1000, "sod_mm": 700, "rows": 61, "columns": 61, "pixel_spacing_mm": (4.0, 4.0)}
    across, along = (moving.beyond().project(CArmView.from_angles(a, 0, **carm), np.eye(4)) > 0 for a in (90, 0))
    assert not across[30, 30]
    assert not along[30, 30]
    # one pixel is 4 * 700 / 1000 = 2.8 mm at the isocentre: 20 pixels are 56 mm, beside the slab's 36; across it stays in the body (58 mm deep)
    assert along[30, 50]
    assert along[30, 10]
    assert not across[30, 48]
