from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Randomizable, Transform
from scripts.errors import InputError
from scripts.learning import DrawDataset, DrawSampler, Stream


class Noise(Randomizable, Transform):
    def __call__(self, data):
        return {"kind": data["kind"], "sick": "lesion" in data, "x": torch.tensor(self.R.normal())}


def dataset(shares=None, seed=0, subjects=3) -> DrawDataset:
    people = [{"subject": i, "x": torch.zeros(1), "label": 1} for i in range(subjects)]
    noise = Noise()
    return DrawDataset(
        [
            Stream("synthetic", people, noise, has=["label"]),
            Stream("real", people, noise, has=["t1"]),
            Stream("real", [{**p, "t1": 1} for p in people], noise, has=["t1"], lacks=["lesion"]),
            Stream("real", [{**people[0], "t1": 1, "lesion": 1}], noise, has=["t1", "lesion"]),
        ],
        shares or {"synthetic": 0.5, "real": 0.5},
        seed=seed,
        length=10,
    )


def test_a_draw_depends_on_its_number_alone():
    one, two = dataset(), dataset()
    forward = [float(one[n]["x"]) for n in range(20)]
    backward = [float(two[n]["x"]) for n in reversed(range(20))][::-1]
    assert forward == backward and len(set(forward)) == 20
    assert [float(dataset(seed=1)[n]["x"]) for n in range(20)] != forward


def test_kinds_and_subjects_are_mixed_as_asked():
    samples = [dataset()[n] for n in range(800)]
    kinds = Counter(sample["kind"] for sample in samples)
    assert 340 < kinds["synthetic"] < 460
    real = [sample for sample in samples if sample["kind"] == "real"]
    diseased = np.mean([sample["sick"] for sample in real])
    assert 0.17 < diseased < 0.33  # one of four real subjects
    assert all(dataset({"real": 1.0})[n]["kind"] == "real" for n in range(20))
    assert not any(sample["sick"] for sample in samples if sample["kind"] == "synthetic")


def test_nothing_to_draw_is_an_error():
    with pytest.raises(InputError, match=r"real \(needs t1\)"):
        DrawDataset([Stream("real", [{"label": 1}], [], has=["t1"])], {"real": 1.0}, 0, 1)


def test_epochs_follow_each_other_and_processes_share_them():
    alone = DrawSampler(6)
    numbers = []
    for epoch in range(3):
        alone.set_epoch(epoch)
        numbers += list(alone)
    assert numbers == list(range(18))
    pair = [DrawSampler(6, num_replicas=2, rank=rank) for rank in (0, 1)]
    for sampler in pair:
        sampler.set_epoch(2)
    assert sorted(n for sampler in pair for n in sampler) == list(range(12, 18))
    assert len(pair[0]) == 3


def test_workers_and_batches_see_the_same_samples():
    data = dataset()
    alone = torch.cat([batch["x"] for batch in DataLoader(data, sampler=DrawSampler(12), batch_size=1)])
    workers = torch.cat(
        [batch["x"] for batch in DataLoader(data, sampler=DrawSampler(12), batch_size=3, num_workers=2)]
    )
    assert torch.equal(alone, workers)
