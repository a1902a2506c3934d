"""Many scans, some of them bad: each bad one is named, no good one is lost, and no file is half written."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Lambda
from scripts.data import ScanCache, SubjectCache, Survey
from scripts.errors import InputError
from scripts.saving import SaveVolumed, output_base, save_volume, whole_file
from scripts.volumes import read_volume


def transform(entry):
    if entry["image"] == "bad.nii":
        raise InputError("bad.nii is broken; replace it")
    if entry["image"] == "worse.nii":
        raise MemoryError("no room")
    return {**entry, "value": torch.ones(1)}


def test_bad_scans_are_named_and_good_ones_done(capsys):
    entries = [{"image": f"{name}.nii"} for name in ("a", "bad", "b", "worse", "c")]
    survey = Survey(ScanCache(entries, transform, None), entries)
    assert [case["image"] for case in survey] == ["a.nii", "b.nii", "c.nii"]
    assert [name for name, _ in survey.failures] == ["bad.nii", "worse.nii"]
    assert "left out: bad.nii is broken; replace it" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"2 of 5 scans could not be used.*bad.nii is broken.*worse.nii"):
        survey.finish()
    good = Survey(ScanCache(entries[:1], transform, None), entries[:1])
    list(good)
    good.finish()


def test_an_error_after_the_network_stops_no_other_scan():
    entries = [{"image": "a.nii"}, {"image": "b.nii"}]
    survey, done = Survey(ScanCache(entries, transform, None), entries), []

    def write(data):
        if data["image"] == "a.nii":
            raise OSError("No space left on device")
        done.append(data["image"])
        return data

    guarded = survey.guarded(write)
    for case in survey:
        guarded(guarded(case))  # what failed once is not tried again
    assert done == ["b.nii", "b.nii"]
    assert survey.failures == [("a.nii", "OSError: No space left on device")]


def test_a_damaged_cache_entry_is_made_again(tmp_path, capsys):
    entries = [{"image": "a.nii", "content": "x"}]
    first = ScanCache(entries, transform, tmp_path)[0]
    (file,) = tmp_path.glob("*.pt")
    whole = file.read_bytes()
    for damage in (whole[: len(whole) // 2], b""):
        file.write_bytes(damage)
        assert ScanCache(entries, transform, tmp_path)[0]["value"] == first["value"]
        assert "is damaged" in capsys.readouterr().out and file.read_bytes()[:2] == whole[:2]


def test_the_cache_is_keyed_by_the_code(tmp_path, monkeypatch):
    entries = [{"image": "a.nii", "content": "x"}]
    ScanCache(entries, transform, tmp_path)[0]
    monkeypatch.setattr("scripts.data.survey.code_hash", lambda: "another version")
    ScanCache(entries, transform, tmp_path)[0]
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), whole_file(path) as partial:
        partial.write_text("half")
        assert path.read_text() == "old"
        raise OSError("full")
    assert path.read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["result.txt"]
    with whole_file(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new" and [f.name for f in tmp_path.iterdir()] == ["result.txt"]


def scan_file(path, qform, sform, units):
    values = np.random.RandomState(0).rand(6, 7, 8).astype(np.float32)
    image = nib.Nifti1Image(values, None)
    image.header.set_xyzt_units(*units)
    image.set_qform(*qform)
    image.set_sform(*sform)
    nib.save(image, path)
    return read_volume(path)


def test_units_and_forms_of_the_scan_survive(tmp_path):
    one, other = np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([-2.0, 2.0, 2.0, 1.0])
    other[1, 3] = 30.0
    for name, qform, sform in (
        ("mni", (one, 1), (one, 4)),
        ("differ", (one, 1), (other, 1)),
        ("q", (one, 2), (None, 0)),
    ):
        scan = scan_file(tmp_path / f"{name}.nii.gz", qform, sform, ("mm", "sec"))
        save_volume(
            MetaTensor(scan.as_tensor() * 2, affine=scan.affine), tmp_path / f"{name}_out.nii.gz", np.float32, like=scan
        )
        before, after = nib.load(tmp_path / f"{name}.nii.gz"), nib.load(tmp_path / f"{name}_out.nii.gz")
        assert after.header.get_xyzt_units() == ("mm", "sec")
        for form in ("qform", "sform"):
            assert before.header[f"{form}_code"] == after.header[f"{form}_code"]
        np.testing.assert_allclose(after.header.get_qform(), before.header.get_qform(), atol=1e-5)
        np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
        np.testing.assert_allclose(after.get_fdata(), 2 * before.get_fdata(), rtol=1e-5)
        warned = scan.meta.get("scan_warnings", [])
        assert bool(warned) == (name == "differ") and all("qform and sform" in text for text in warned)


def test_integers_are_rounded_not_cut(tmp_path):
    mask = MetaTensor(torch.tensor([0.0, 0.4, 0.99999, 1.00001]).reshape(1, 2, 2, 1), affine=torch.eye(4))
    save_volume(mask, tmp_path / "mask.nii.gz", np.uint8)
    assert nib.load(tmp_path / "mask.nii.gz").get_fdata().ravel().tolist() == [0, 0, 1, 1]


def test_equal_volumes_are_equal_files_that_any_gzip_reads(tmp_path):
    values = torch.rand(1, 30, 31, 32, generator=torch.Generator().manual_seed(0))
    for name in ("one", "other"):
        save_volume(MetaTensor(values, affine=torch.eye(4)), tmp_path / f"{name}.nii.gz", np.float32)
    one, other = ((tmp_path / f"{name}.nii.gz").read_bytes() for name in ("one", "other"))
    assert one == other
    image = nib.Nifti1Image.from_bytes(gzip.decompress(one))
    assert np.array_equal(image.get_fdata(dtype=np.float32), values[0].numpy())


def test_results_stay_inside_of_the_output_folder(tmp_path):
    scan = MetaTensor(torch.rand(1, 4, 4, 4), meta={"filename_or_obj": str(tmp_path / "in/deep/scan.nii.gz")})
    root = str(tmp_path / "in")
    assert output_base(scan.meta["filename_or_obj"], "x", tmp_path / "out", root) == tmp_path / "out/deep/scan_x"
    with pytest.raises(InputError, match="outside of"):
        output_base(str(tmp_path / "elsewhere/scan.nii.gz"), "x", tmp_path / "out", root)
    saved = SaveVolumed("image", "x", tmp_path / "out", root, source_key="image")({"image": scan})
    assert (tmp_path / "out/deep/scan_x.nii.gz").is_file() and saved["image"] is scan


def test_a_subject_that_cannot_be_prepared_stops_no_other(capsys):
    entries = [{"subject": name, "image": f"{name}.nii"} for name in ("bad", "a", "worse", "b")]
    prepare = Lambda(transform)  # MONAI keeps what its own transforms make
    kept = SubjectCache(entries, prepare)
    assert [kept[number]["subject"] for number in range(len(kept))] == ["a", "b"]
    assert [entry["subject"] for entry in kept.data] == ["a", "b"]  # by which a stream chooses
    assert "left out: subject worse: MemoryError: no room" in capsys.readouterr().out
    with pytest.raises(InputError, match="2 subjects could not be used: bad: bad.nii is broken; replace it; worse: "):
        kept.finish()
    with pytest.raises(InputError, match="bad.nii is broken"):
        SubjectCache(entries[:1], prepare)
    half = SubjectCache(entries, prepare, cache_rate=0.5)
    assert [entry["subject"] for entry in half.data] == ["a", "worse", "b"] and half[2]["subject"] == "b"
    SubjectCache([entries[1]], prepare).finish()
