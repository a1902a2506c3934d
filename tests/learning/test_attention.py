"""The weight of each lesion, by its volume."""

import pytest
import torch
from scripts.learning import LesionAttention, LesionAttentiond


def test_weight_falls_with_the_volume_of_the_lesion():
    anomaly = torch.zeros(1, 40, 40, 40)
    anomaly[:, 2:12, 2:12, 2:12] = 1.0  # 1000 voxels of 2 mm: 8 ml
    anomaly[:, 30:32, 30:32, 30:32] = 0.5  # 0.064 ml
    anomaly[:, 20, 20, 20] = 0.1  # not above the threshold: no lesion
    weight = LesionAttention(reference_ml=2.0, power=0.5, limits=(0.1, 5.0))(anomaly, 2.0)
    assert weight[0, 5, 5, 5] == pytest.approx((2.0 / 8.0) ** 0.5)
    assert weight[0, 30, 30, 30] == pytest.approx(5.0)  # (2 / 0.064)^0.5 is above the limit
    assert weight[0, 20, 20, 20] == 1.0 and weight[0, 0, 0, 0] == 1.0
    # With power 1 two lesions far apart in volume weigh the same in total.
    each = LesionAttention(power=1.0, limits=(0.0, 1e6))(anomaly, 2.0)
    assert float(each[:, 2:12, 2:12, 2:12].sum()) == pytest.approx(float(each[:, 30:32, 30:32, 30:32].sum()), rel=1e-5)


def test_the_paper_weighs_every_voxel_the_same(omega):
    anomaly = (omega > 0).float()
    out = LesionAttentiond("anomaly", voxel_size=1.0, power=0.0)({"anomaly": anomaly})
    assert (out["attention"] == 1.0).all()
    torch.testing.assert_close(out["attention"].affine, omega.affine)
