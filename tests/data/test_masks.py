"""Which mask belongs to which scan: the right one, or a refusal that names both."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scripts.data.masks import matched_masks
from scripts.errors import InputError

ENDINGS = ("", "_lesion", "_mask", "_seg", "-label", "_label-lesion_roi", "_desc-lesion_mask", "_lesion_mask")
PEOPLE = st.lists(
    st.sampled_from(["anna", "ben", "sub-01", "sub-02", "p1", "p11", "x"]), min_size=1, max_size=4, unique=True
)


def scan(root: Path, relative: str, person: str, modality: str = "t1") -> dict:
    return {"image": str(root / relative), "subject": Path(relative).name, "person": person, "modality": modality}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=PEOPLE, masked=st.integers(1, 4), ending=st.sampled_from(ENDINGS), folders=st.booleans(), deep=st.booleans()
)
def test_the_right_mask_or_a_refusal(tmp_path_factory, people, masked, ending, folders, deep):
    """Folders a person, or names a person; masks in the same folders or all in one."""
    root, labels = (tmp_path_factory.mktemp(name) for name in ("scans", "labels"))
    names = {person: f"{person}/anat_T1w" if folders else f"{person}_T1w" for person in people}
    scans = [scan(root, f"{names[person]}.nii.gz", person) for person in people]
    for person in people[:masked]:
        file = labels / f"{names[person] if deep else Path(names[person]).name}{ending}.nii.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    if folders and not deep and len(people) > 1:  # all masks have one name: that of one person may be of any
        with pytest.raises(InputError, match="may belong to"):
            matched_masks(scans, labels, root)
        return
    found = matched_masks(scans, labels, root)
    assert {people[number] for number in found} == set(people[:masked])
    for number, file in found.items():
        assert people[number] in file.removeprefix(str(labels)) or (folders and not deep)


def test_a_mask_of_a_person_serves_all_scans_of_that_person(tmp_path):
    scans = [
        scan(tmp_path, f"sub-01/sub-01_{name}.nii.gz", "sub-01", kind)
        for name, kind in (("T1w", "t1"), ("FLAIR", "flair"))
    ]
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "sub-01_label-lesion_mask.nii.gz").touch()
    assert len(matched_masks(scans, labels, tmp_path)) == 2
    (labels / "sub-01_FLAIR_lesion.nii.gz").touch()  # the nearer name wins
    assert matched_masks(scans, labels, tmp_path)[1].endswith("FLAIR_lesion.nii.gz")


def test_two_masks_of_one_scan_are_refused(tmp_path):
    (tmp_path / "labels").mkdir()
    for name in ("a_T1w_lesion.nii.gz", "a_T1w_seg.nii.gz"):
        (tmp_path / "labels" / name).touch()
    with pytest.raises(InputError, match="has two masks"):
        matched_masks([scan(tmp_path, "a_T1w.nii.gz", "a")], tmp_path / "labels", tmp_path)


def test_masks_beside_their_scans(tmp_path):
    """The scans themselves are no masks, nor is another contrast of the person."""
    for name in ("a_T1w.nii.gz", "a_T2w.nii.gz", "a_lesion.nii.gz"):
        (tmp_path / name).touch()
    found = matched_masks([scan(tmp_path, "a_T1w.nii.gz", "a")], tmp_path, tmp_path)
    assert [Path(file).name for file in found.values()] == ["a_lesion.nii.gz"]
