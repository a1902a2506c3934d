"""Both stages of disentangled anatomy: losses by hand, and who learns when."""

import math

import pytest
import torch
from conftest import TINY_ANATOMY
from monai.data import DataLoader
from scripts.config import from_config, parse
from scripts.learning import (
    PrepareContrasts,
    PrepareEdges,
    PreparePair,
    Representation,
    RepresentationLoss,
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return parse(["guest.yaml", "methods/disentangled.yaml"], TINY_ANATOMY).get_parsed_content("network_def")


@pytest.fixture(scope="module")
def batch(sample_datalist):
    """A real pair of the generator, at 4 mm."""
    settings = {"datalist": str(sample_datalist), "voxel_size": 4.0, "patch_size": [32, 48, 32], "draws": 1}
    pairs = from_config("generator.yaml", "pairs", {**settings, "shares": {"synthetic": 1.0}})
    return next(iter(DataLoader(pairs, batch_size=1)))


def test_representation_loss_by_hand():
    logits = torch.zeros(1, 2, 4, 1, 1, 1)
    logits[0, 1, 2] = 0.5 * math.log(3.0)  # with the temperature of 0.5 three times as likely as each other tissue
    vectors = torch.tensor([[[0.0, 1.0], [3.0, 4.0]]])
    drawn = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])[..., None, None, None]
    truth = torch.tensor([[0.1, 0.6]])[..., None, None, None]
    redrawn = torch.zeros(1, 2, 2, 2)
    found = {"logits": logits, "vectors": vectors, "drawn": drawn, "redrawn": redrawn, "truth": truth}
    tissues = torch.full((1, 1, 1, 1, 1), 2)
    terms = RepresentationLoss().terms(found, tissues)
    assert float(terms["rebuild"]) == pytest.approx((0.0 + 0.4 + 0.2 + 0.2) / 4)
    assert float(terms["agree"]) == pytest.approx((3 * (1 / 4 - 1 / 6) + (3 / 6 - 1 / 4)) / 4)
    share = math.sqrt(3.0) / (
        3.0 + math.sqrt(3.0)
    )  # of the true tissue in the partner, by the plain softmax of the prior
    cross_entropy = math.log(4.0) - math.log(share)
    # In one voxel the Dice of a tissue is 2 p / (p + 1) where it is true, and 0 elsewhere, but for MONAI's smoothing.
    overlap = 2 * 0.25 / 1.25 + 2 * share / (share + 1)
    assert float(terms["prior"]) == pytest.approx((cross_entropy + 2.0 - overlap / 4) / 2, rel=1e-3)
    assert float(terms["cycle"]) == pytest.approx((0.0 + 1.0 + 3.0 + 4.0) / 4)
    weighed = RepresentationLoss(rebuild=2.0, agree=0.0, prior=0.0, cycle=3.0)(found, tissues)
    assert float(weighed) == pytest.approx(2.0 * 0.2 + 3.0 * 2.0)


def test_every_vector_is_drawn_with_every_anatomy(network, batch):
    pair, _ = PreparePair()(batch, "cpu")
    network.eval()
    with torch.no_grad():
        found = Representation(network).eval()(pair)
        code = network.encoder(network.anatomy(pair[:, 2:3])[0])  # of the partner
        crossed = network.combiner(
            code, network.modality(pair[:, 1:2], network.anatomy(pair[:, 1:2])[1])
        )  # in the contrast of the intact scan
    torch.testing.assert_close(found["drawn"][:, 1, 0:1], crossed)
    torch.testing.assert_close(found["truth"], pair[:, 1:3])


def test_a_pair_is_one_anatomy_in_two_contrasts(batch):
    tissues, intact, partner, scan = (batch[key][0, 0] for key in ("tissues", "intact", "partner", "scan"))
    assert set(tissues.unique().tolist()) == {0.0, 1.0, 2.0, 3.0}
    outside = tissues == 0
    assert float(intact[outside].max()) == 0.0 and float(partner[outside].max()) == 0.0
    means = [torch.stack([image[tissues == number].mean() for number in (1, 2, 3)]) for image in (intact, partner)]
    assert not torch.allclose(*means, atol=0.05)
    assert not torch.equal(scan, intact)  # the scan has the anomaly


def test_stage_zero_teaches_one_tissue_map_in_both_contrasts(network, batch):
    scans, tissues = PrepareContrasts()(batch, "cpu")
    torch.testing.assert_close(scans, torch.cat([batch["intact"], batch["partner"]]))
    torch.testing.assert_close(tissues[0], tissues[1])
    parser = parse(["guest.yaml", "methods/disentangled.yaml"], TINY_ANATOMY)
    loss = parser.get_parsed_content("tissue_trainer::loss_function")
    optimizer = torch.optim.AdamW(network.extractor.parameters(), lr=1e-2)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(network.extractor(scans), tissues)
        value.backward()
        optimizer.step()
        found.append(float(value.detach()))
    assert found[-1] < 0.8 * found[0]


def test_stage_one_leaves_the_restorer_alone_and_stage_two_all_else(network, batch):
    pair, tissues = PreparePair()(batch, "cpu")
    learns = lambda: {  # noqa: E731
        name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    RepresentationLoss()(Representation(network).train()(pair), tissues).backward()
    assert learns() == {"extractor", "encoder", "combiner"}
    assert float(network.usual_vector.abs().max()) > 0.0

    network.zero_grad(set_to_none=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    edges, healthy = PrepareEdges(network)(batch, "cpu")
    parser = parse(["guest.yaml", "methods/disentangled.yaml"], {**TINY_ANATOMY, "learning_rate": 1e-2})
    parser["network"] = network
    loss, optimizer = parser.get_parsed_content("loss"), parser.get_parsed_content("optimizer")
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(parser.get_parsed_content("trained")(edges), healthy)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert learns() == {"restorer"}
    moved = {name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"restorer"}
    assert losses[-1] < 0.9 * losses[0]


def test_the_restorer_is_shown_the_lesion_and_asked_for_the_anatomy_without(network, batch):
    edges, healthy = PrepareEdges(network)({**batch, "shown": torch.ones_like(batch["shown"])}, "cpu")
    scan, intact = (network.anatomy(torch.as_tensor(batch[key]).float())[0] for key in ("scan", "intact"))
    torch.testing.assert_close(edges, network.edges(scan))
    torch.testing.assert_close(healthy, intact.argmax(dim=1, keepdim=True))
    blank, _ = PrepareEdges(network)({**batch, "shown": torch.zeros_like(batch["shown"])}, "cpu")
    assert float(blank.abs().max()) == 0.0


def test_boxes_are_hidden_by_the_draw(sample_datalist):
    settings = {"datalist": str(sample_datalist), "voxel_size": 4.0, "patch_size": [32, 48, 32], "draws": 8}
    pairs = from_config("generator.yaml", "pairs", {**settings, "shares": {"synthetic": 1.0}, "anomaly_prob": 0.0})
    shares = [float(pairs[number]["shown"].mean()) for number in range(8)]
    assert shares == [float(pairs[number]["shown"].mean()) for number in range(8)]
    assert 1 <= sum(share < 1.0 for share in shares) < 8 and min(shares) > 0.3
