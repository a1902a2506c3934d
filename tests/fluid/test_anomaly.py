import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from scipy import ndimage
from scripts.errors import InputError
from scripts.fluid import RandFluidAnomaly, RandFluidAnomalyd, perlin_seed

FAST = {"cell_size": 20.0, "velocity_scale": 60.0, "diffusivity_scale": 0.5, "taper": 5.0}


@pytest.fixture
def traced(tmp_path) -> str:
    """A cube of 6 mm centred at RAS (-6, 3, 0), stored in LPS with 2 mm voxels."""
    mask = np.zeros((30, 30, 30), dtype=np.uint8)
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    affine[:3, 3] = [29.0, 29.0, -29.0]
    centre = np.linalg.inv(affine) @ [-6.0, 3.0, 0.0, 1.0]
    low = np.round(centre[:3] - 1.5 + 0.5).astype(int)
    mask[tuple(slice(i, i + 3) for i in low)] = 1
    path = tmp_path / "traced.nii.gz"
    nib.save(nib.Nifti1Image(mask, affine), path)
    return str(path)


def test_same_seed_same_anomaly_and_another_seed_another(omega):
    first, again, other = (RandFluidAnomaly(**FAST).set_random_state(s)(omega) for s in (0, 0, 1))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert (first - other).abs().max() > 0.1


def test_probability_map_inside_omega_with_its_meta_data(omega):
    transform = RandFluidAnomaly(**FAST)
    for seed in range(6):
        anomaly = transform.set_random_state(seed)(omega)
        assert isinstance(anomaly, MetaTensor) and anomaly.dtype == torch.float32 and anomaly.shape == omega.shape
        assert torch.equal(anomaly.affine, omega.affine)
        assert 0.0 <= anomaly.min() and anomaly.max() <= 1.0 + 1e-5
        assert not anomaly[omega == 0].any()
        assert anomaly.max() > 0.2


def test_dictionary_form_is_the_array_form(omega):
    array = RandFluidAnomaly(**FAST).set_random_state(state=np.random.RandomState(5))(omega)
    data = RandFluidAnomalyd(keys="brain", **FAST).set_random_state(state=np.random.RandomState(5))({"brain": omega})
    torch.testing.assert_close(data["anomaly"], array, atol=0, rtol=0)
    assert data["brain"] is omega


def test_plain_tensor_in_plain_tensor_out(omega):
    plain = RandFluidAnomaly(**FAST).set_random_state(3)(omega.as_tensor())
    assert not isinstance(plain, MetaTensor)
    torch.testing.assert_close(plain, RandFluidAnomaly(**FAST).set_random_state(3)(omega).as_tensor(), atol=0, rtol=0)


def test_batches_and_workers_do_not_change_a_sample(omega):
    class Seeded(RandFluidAnomalyd):
        def __call__(self, data):
            self.set_random_state(data["seed"])
            return super().__call__(data)

    items = [{"brain": omega, "seed": seed} for seed in range(4)]
    dataset = Dataset(items, Seeded(keys="brain", **FAST))
    one_by_one = torch.cat([batch["anomaly"] for batch in DataLoader(dataset, batch_size=1, num_workers=0)])
    batched = torch.cat([batch["anomaly"] for batch in DataLoader(dataset, batch_size=2, num_workers=2)])
    # Workers compute on one thread, whose sums are rounded in another order.
    torch.testing.assert_close(one_by_one.as_tensor(), batched.as_tensor(), atol=1e-6, rtol=0)


def test_traced_mask_lands_where_its_affine_says(omega, traced):
    still = RandFluidAnomaly([traced], traced_probability=1.0, num_times=(1, 1)).set_random_state(0)
    seed = still(omega)[0]
    mass_centre = (seed.nonzero().double() * seed[seed > 0][:, None]).sum(0) / seed.sum()
    world = omega.affine @ torch.cat([mass_centre, torch.ones(1, dtype=torch.float64)])
    torch.testing.assert_close(world[:3], torch.tensor([-6.0, 3.0, 0.0], dtype=torch.float64), atol=1.01, rtol=0)
    assert abs(float(seed.sum()) - 216.0) < 22.0  # 6 mm cube
    assert not torch.equal(
        still.trajectory(omega)[0], RandFluidAnomaly([traced], 1.0, **FAST).set_random_state(0)(omega)[0]
    )


def test_either_term_can_be_switched_off(omega, traced):
    def end(**scales):
        transform = RandFluidAnomaly([traced], 1.0, num_times=(10, 10), **{**FAST, **scales}).set_random_state(0)
        return transform(omega)

    still = end(velocity_scale=0.0, diffusivity_scale=0.0)
    advected, diffused = end(diffusivity_scale=0.0), end(velocity_scale=0.0)
    assert (advected - still).abs().max() > 0.1 and (diffused - still).abs().max() > 0.02

    # Diffusion of a mask about its own place, transport elsewhere.
    def centre(p):
        return (p[0].nonzero().double() * p[0][p[0] > 0][:, None]).sum(0) / p.sum()

    assert (centre(diffused) - centre(still)).norm() < 0.5 < (centre(advected) - centre(still)).norm()


def test_perlin_seed_keeps_the_noise_above_its_percentile(omega):
    domain = omega[0] > 0
    seed = perlin_seed(np.random.RandomState(0), domain, 20.0, 95.0)
    assert abs(float((seed[domain] > 0).float().mean()) - 0.05) < 0.005
    assert 0.0 < seed[seed > 0].min() and seed[seed > 0].unique().numel() > 100


def test_tiny_lesions_are_dropped_and_prob_zero_gives_none(omega):
    assert not RandFluidAnomaly(min_lesion_fraction=1.0, **FAST).set_random_state(0)(omega).any()
    assert not RandFluidAnomaly(prob=0.0, **FAST).set_random_state(0)(omega).any()


def test_bad_input_is_named(omega, tmp_path):
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(b"not a volume")
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4, 3), np.uint8), np.eye(4)), flat)
    with pytest.raises(InputError, match="Omega is empty"):
        RandFluidAnomaly()(torch.zeros_like(omega))
    with pytest.raises(InputError, match="one 3D mask"):
        RandFluidAnomaly()(omega[0])
    for path, message in (
        (damaged, "cannot read"),
        (tmp_path / "absent.nii.gz", "cannot read"),
        (flat, "not a 3D volume"),
    ):
        with pytest.raises(InputError, match=f"{message}|{path.name}"):
            RandFluidAnomaly([path], traced_probability=1.0)(omega)
    with pytest.raises(InputError, match="placed by affines"):
        RandFluidAnomaly([flat], traced_probability=1.0)(omega.as_tensor())
    with pytest.raises(InputError, match="velocity_scale must not be negative"):
        RandFluidAnomaly(velocity_scale=-1.0)


def test_a_mask_in_another_space_is_reported(omega, traced):
    shifted = omega.affine.clone()
    shifted[:3, 3] += 500.0
    far = MetaTensor(omega.as_tensor(), affine=shifted)
    with pytest.warns(UserWarning, match="traced.nii.gz does not meet Omega"):
        assert not RandFluidAnomaly([traced], traced_probability=1.0, **FAST).set_random_state(0)(far).any()


def test_without_numba_the_torch_engine_takes_over(omega):
    code = (
        "import sys; sys.modules['numba'] = None; sys.path.insert(0, 'bundle')\n"
        "import torch\n"
        "from scripts.fluid import RandFluidAnomaly, transport\n"
        "assert transport.advance_rows is None\n"
        f"anomaly = RandFluidAnomaly(**{FAST}).set_random_state(3)(torch.load(sys.argv[1]))\n"
        "torch.save(anomaly, sys.argv[1])\n"
    )
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(omega.as_tensor(), file.name)
        subprocess.run([sys.executable, "-c", code, file.name], check=True, cwd=Path(__file__).parents[2])
        alone = torch.load(file.name)
    torch.testing.assert_close(
        alone, RandFluidAnomaly(**FAST).set_random_state(3)(omega.as_tensor()), atol=5e-6, rtol=0
    )


def test_small_cells_make_many_small_lesions_on_both_sides(omega):
    domain = omega.as_tensor()[0] > 0

    def count(cell: float) -> tuple[float, float]:
        counts, sided = [], []
        for seed in range(10):
            mask = (perlin_seed(np.random.RandomState(seed), domain, cell, 95.0, 0.5) > 0.2).numpy()
            counts.append(ndimage.label(mask)[1])
            left = mask[:20].sum() / mask.sum()
            sided.append(min(left, 1 - left))
        return float(np.mean(counts)), float(np.mean(sided))

    (many, both), (few, one) = count(5.0), count(40.0)
    assert many > 5 * few and both > one + 0.1, (many, few, both, one)


def test_a_saturated_seed_reaches_one_and_vanishes_at_its_edge(omega):
    domain = omega.as_tensor()[0] > 0
    plain = perlin_seed(np.random.RandomState(3), domain, 20.0, 95.0)
    soft, hard = (perlin_seed(np.random.RandomState(3), domain, 20.0, 95.0, s) for s in (1.0, 0.2))
    assert torch.equal(soft > 0, plain > 0) and plain.max() < 1.0
    assert soft.max() == 1.0 and (soft == 1.0).sum() == 1
    assert (hard == 1.0).sum() > 0.3 * (hard > 0).sum() and (hard >= soft).all()
    # Without a saturation the draws are those of before: the same random numbers are taken.
    first, again = (RandFluidAnomaly(**FAST, seed_saturation=s).set_random_state(7) for s in (None, (0.5, 0.5)))
    first.randomize()
    again.randomize()
    assert first._percentile == again._percentile and first._seed_cell == pytest.approx(20.0)
