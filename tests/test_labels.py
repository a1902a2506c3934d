import pytest
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.labels import CleanLabelsd, LabelTable, TissueMaskd


@pytest.fixture
def table() -> LabelTable:
    return LabelTable(
        left=[1, 2],
        right=[11, 12],
        neutral=[5],
        tissues={"white_matter": [1, 11], "gray_matter": [2, 12]},
        merge={77: 1},
    )


def test_clean_drops_merges_and_keeps(table):
    raw = torch.tensor([[[0, 1, 77, 507, 12, -3, 5]]])
    assert table.clean(raw).tolist() == [[[0, 1, 1, 0, 12, 0, 5]]]
    assert table.clean(raw.float()).dtype == torch.int64


def test_unknown_labels_are_named_with_their_file(table):
    volume = MetaTensor(torch.full((1, 2, 2, 2), 99.0), meta={"filename_or_obj": "subject.nii.gz"})
    with pytest.raises(InputError, match=r"subject.nii.gz has labels \[99\]"):
        CleanLabelsd("label", table)({"label": volume})
    with pytest.raises(InputError, match="no brain label"):
        table.clean(torch.full((1, 2, 2, 2), 300))


def test_swap_sides_is_an_involution_that_spares_the_neutral(table):
    labels = torch.tensor([0, 1, 2, 5, 11, 12])
    swapped = table.swap_sides(labels)
    assert swapped.tolist() == [0, 11, 12, 5, 1, 2]
    assert torch.equal(table.swap_sides(swapped), labels)


def test_masks(table):
    labels = torch.tensor([[[[0, 1, 2, 5, 11, 12]]]])
    assert TissueMaskd("label", table)({"label": labels})["brain"].flatten().tolist() == [0, 1, 1, 1, 1, 1]
    white = TissueMaskd("label", table, tissue="white_matter", mask_key="omega")({"label": labels})["omega"]
    assert white.dtype == torch.float32 and white.flatten().tolist() == [0, 1, 0, 0, 1, 0]
    with pytest.raises(InputError, match="no tissue 'bone'"):
        table.mask(labels, "bone")


def test_unpaired_table_is_refused():
    with pytest.raises(InputError, match="2 left but 1 right"):
        LabelTable(left=[1, 2], right=[3], neutral=[], tissues={})
