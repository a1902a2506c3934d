"""Whatever stands in a mask file: the lesion, or a refusal, and never another lesion."""

import nibabel as nib
import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.preprocessing import lesion_mask
from scripts.standard_space import load_template
from scripts.standard_space.template import in_mni_space

GRID = (24, 24, 24)
BODY = np.linalg.norm(np.stack(np.meshgrid(*map(np.arange, GRID), indexing="ij")) - 11.5, axis=0) < 10.0


@settings(max_examples=150, deadline=None)
@given(
    value=st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0, 2.0, 100.0, 255.0]),
    background=st.sampled_from(["zero", "minus one", "nan", "inf", "faint", "noise"]),
    other=st.sampled_from([None, 1.0, 3.0]),  # a second label
    chosen=st.booleans(),
    inverted=st.booleans(),
    edge=st.integers(1, 12),
    place=st.integers(0, 10),
)
def test_a_lesion_or_a_refusal(value, background, other, chosen, inverted, edge, place):
    lesion = np.zeros(GRID, dtype=bool)
    lesion[place : place + edge, 8 : 8 + edge, 8 : 8 + edge] = True
    if inverted:
        lesion = ~lesion
    values = np.where(lesion, value, 0.0).astype(np.float32)
    outside = {"minus one": -1.0, "nan": np.nan, "inf": np.inf, "faint": 0.2 * value, "zero": 0.0}
    noise = np.random.RandomState(edge).uniform(0.0, 0.9 * value, GRID)
    values[~lesion] = noise[~lesion] if background == "noise" else outside[background]
    second = np.zeros(GRID, dtype=bool)
    if other is not None and other != value:
        second[20:22, 20:22, 20:22] = True
        second &= ~lesion
        values[second] = other
    # A voxel has 8 ml: an inverted mask of 24^3 of them marks more than a brain has.
    volume = MetaTensor(torch.from_numpy(values)[None], affine=torch.diag(torch.tensor([20.0, 20.0, 20.0, 1.0])))
    told = chosen and value == round(value)  # a label is a whole number
    try:
        found = lesion_mask(volume, value if told else None)
    except InputError as refused:
        assert "lesion" in str(refused) or "label" in str(refused)
        return
    assert not inverted
    # A probability counts from one half on, and a second region of it is lesion, too.
    expected = lesion | (second & (other == 1.0) & (value < 1.0) & (value >= 0.5)) if not told else lesion
    if value < 0.5 and other == 1.0:  # the second region is what is probable
        expected = second
    np.testing.assert_array_equal(found[0].numpy() > 0, expected)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(code=st.sampled_from([0, 1, 2, 3, 4]), said=st.sampled_from([None, True, False]), edge=st.integers(4, 14))
def test_a_template_is_a_brain_and_has_regions_where_it_says_so(tmp_path_factory, code, said, edge):
    path = tmp_path_factory.mktemp("template") / "mine.nii.gz"
    image = nib.Nifti1Image(BODY.astype(np.float32), np.diag([float(edge)] * 3 + [1.0]))
    image.set_sform(image.affine, code)
    image.set_qform(image.affine, code)
    nib.save(image, path)
    shown = BODY.sum() * edge**3 / 1000.0
    try:
        load_template(str(path))
    except InputError as refused:
        # A file without a form code does not say where it lies.
        assert ("brain-extracted" in str(refused)) == (shown > 2300.0 and code > 0) and (code == 0 or shown > 2300.0)
        return
    assert shown <= 2300.0 and code > 0
    assert in_mni_space(str(path), said) == (code == 4 if said is None else said)
