"""Samples as numbered draws: the same number gives the same sample, whatever ran before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.transforms import Compose
from monai.utils import ensure_tuple
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from ..errors import InputError

__all__ = ["DrawDataset", "DrawSampler", "Stream"]


@dataclass
class Stream:
    """One way to make a sample.

    Args:
        kind: what the sample counts as when kinds are mixed, for example "synthetic" or "real".
        data: subjects to draw from, as dictionaries (a list, or a MONAI dataset of prepared subjects).
        transform: transforms, random ones included, that make a sample of a subject.
        has: items that a subject must have to be used here.
        lacks: items that it must not have.
    """

    kind: str
    data: Sequence[Mapping[str, Any]]
    transform: Any
    has: Sequence[str] = ()
    lacks: Sequence[str] = ()

    def __post_init__(self) -> None:
        # The entries of the datalist tell what a subject has: nothing is loaded to find out.
        entries = getattr(self.data, "data", self.data)
        self.subjects = [
            index
            for index, entry in enumerate(entries)
            if all(key in entry for key in self.has) and not any(key in entry for key in self.lacks)
        ]
        self.transform = Compose(list(ensure_tuple(self.transform)))


class DrawDataset(Dataset):
    """Random samples without end, numbered. Draw n depends on the seed and on n alone, not on worker, order or history:
    that is what makes a resumed, a multi-process and a single-process run see the same samples.

    Args:
        streams: ways to make a sample. Those without subjects are left out; within a kind every subject counts the same.
        shares: how often each kind is drawn, relative to the others [paper: synthetic 0.5, real 0.5].
        seed: seed of all draws.
        length: number of draws of a plain pass over the dataset; a `DrawSampler` goes beyond it.

    Raises:
        InputError: when no stream with a positive share has a subject.
    """

    def __init__(self, streams: Sequence[Stream], shares: Mapping[str, float], seed: int, length: int) -> None:
        self.streams = [stream for stream in streams if stream.subjects and shares.get(stream.kind, 0.0) > 0]
        if not self.streams:
            wanted = [f"{stream.kind} (needs {', '.join(stream.has) or 'nothing'})" for stream in streams]
            raise InputError(f"no subject of the datalist fits any kind of sample asked for: {'; '.join(wanted)}")
        subjects = Counter()
        for stream in self.streams:
            subjects[stream.kind] += len(stream.subjects)
        weights = [shares[stream.kind] * len(stream.subjects) / subjects[stream.kind] for stream in self.streams]
        self.probabilities = np.array(weights) / np.sum(weights)
        self.seed = seed
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: int) -> Mapping[str, Any]:
        state = np.random.RandomState(np.random.SeedSequence([self.seed, draw]).generate_state(4))
        stream = self.streams[state.choice(len(self.streams), p=self.probabilities)]
        stream.transform.set_random_state(state=state)
        subject = stream.data[stream.subjects[state.randint(len(stream.subjects))]]
        return stream.transform({**subject, "kind": stream.kind})


class DrawSampler(DistributedSampler):
    """Numbers of the draws of an epoch: epoch e has the draws ``e x draws_per_epoch`` onwards, split over the processes.

    As a `DistributedSampler` MONAI's engines tell it the epoch.

    Args:
        draws_per_epoch: draws of one epoch, of all processes together.
        num_replicas: number of processes.
        rank: this process.
    """

    def __init__(self, draws_per_epoch: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(range(draws_per_epoch), num_replicas, rank, shuffle=False, drop_last=True)

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * len(self.dataset) + self.rank
        return iter(range(first, first + self.num_samples * self.num_replicas, self.num_replicas))
