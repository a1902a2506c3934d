"""Go through many scans: one that cannot be used is named, and stops no other."""

from __future__ import annotations

import hashlib
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from monai.bundle import ConfigParser
from monai.data import CacheDataset, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.networks.utils import eval_mode

from ..config import command_line
from ..errors import InputError
from ..jobs import Crew, reason

__all__ = ["ScanCache", "SubjectCache", "Survey", "code_hash"]


@lru_cache(maxsize=1)
def code_hash() -> str:
    """Of all modules of the bundle: what was prepared by other code is prepared again."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _hash_with_code(item: Any) -> bytes:
    return pickle_hashing([pickle_hashing(item).decode(), code_hash()])


class ScanCache(PersistentDataset):
    """MONAI's `PersistentDataset`, keyed by the content of the scans, the transforms and the code; a damaged entry is made again.

    Args:
        data: entries, with ``content``, a hash of the scan.
        transform: how a scan is prepared.
        cache_dir: a folder; None keeps nothing.
    """

    def __init__(self, data: Sequence[Any], transform: Callable, cache_dir: str | Path | None) -> None:
        super().__init__(
            data, transform, cache_dir, hash_transform=_hash_with_code, track_meta=True, weights_only=False
        )

    def _cachecheck(self, item_transformed: Any) -> Any:
        try:
            return super()._cachecheck(item_transformed)
        except (RuntimeError, EOFError, UnpicklingError, OSError) as error:
            if self.cache_dir is None:
                raise
            file = self.cache_dir / f"{self.hash_func(item_transformed).decode('utf-8')}{self.transform_hash}.pt"
            if not file.is_file():
                raise
            print(f"{file} is damaged ({type(error).__name__}); the scan is prepared again", flush=True)
            file.unlink()
            return super()._cachecheck(item_transformed)


class _Errand:
    """What another process does with a scan: all that the configs of this command line say of one, up to its results.

    A worker reads the configs, the weights and the templates once, for its first scan.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], returned_keys: Sequence[str] | None) -> None:
        self.entries = list(entries)
        self.returned_keys = returned_keys
        self.argv = list(sys.argv)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "parser"}  # workers hand it on

    @cached_property
    def parser(self) -> ConfigParser:
        sys.argv[:] = self.argv  # fingerprints of results are made of it
        files, overrides = command_line()
        parser = ConfigParser(config=ConfigParser.load_config_files(files))
        parser.update(overrides)
        # What was found is not sought again. A file name is no value of a config, which might be evaluated.
        parser.globals["found"] = self.entries
        parser.update({"scans": "$found", "todo": "@scans", "workers": 1})
        parser.get_parsed_content("initialize")
        return parser


def _run_errand(errand: _Errand, number: int) -> dict[str, Any]:
    network = errand.parser.get_parsed_content("network")
    case = errand.parser.get_parsed_content("dataset")[number]
    with eval_mode(network):
        case = errand.parser.get_parsed_content("results")({**case, "pred": network(case)})
    keys = case if errand.returned_keys is None else errand.returned_keys
    return {key: case[key] for key in keys}


class Survey:
    """Prepared scans one after the other, without those that cannot be used. It can be iterated again.

    Args:
        dataset: scans; an error of its transform is noted.
        entries: of the dataset, with ``image``.
        crew: who works on them. Other processes do all that the configs say of a scan, and return its results.
        returned_keys: the results that are needed here; None for all of them.

    Attributes:
        failures: file and reason of each scan that was left out.
    """

    def __init__(
        self,
        dataset: Sequence[Any],
        entries: Sequence[Mapping[str, Any]],
        crew: Crew | None = None,
        returned_keys: Sequence[str] | None = None,
    ) -> None:
        self.dataset = dataset
        self.entries = list(entries)
        self.crew = crew or Crew()
        self.returned_keys = returned_keys
        self.failures: list[tuple[str, str]] = []
        self.unusable: set[int] = set()

    def _note(self, number: int, error: Exception) -> None:
        if number in self.unusable:
            return
        self.unusable.add(number)
        image = self.entries[number]["image"]
        name = str(image if isinstance(image, str) else Path(image[0]).parent)
        why = reason(error)
        self.failures.append((name, why))
        print(f"left out: {why if name in why else f'{name}: {why}'}", flush=True)

    def note(self, error: Exception) -> None:
        """Leave out the current scan because of an error, and go on."""
        self._note(self.number, error)

    def _results(self) -> Iterator[Any]:
        numbers = range(len(self.dataset))
        if self.crew.alone:
            return self.crew.results(operator.getitem, self.dataset, numbers)
        return self.crew.results(_run_errand, _Errand(self.entries, self.returned_keys), numbers)

    def __iter__(self) -> Iterator[Any]:
        for number, case in enumerate(self._results()):
            self.number = number
            if isinstance(case, Exception):
                self._note(number, case)
            else:
                yield case

    def guarded(self, transform: Callable) -> Callable:
        """A transform of the current scan. Its errors, a full disk for one, are noted, too. What was noted is not transformed.

        Nor is what another process did.
        """

        def guarded(data: Any) -> Any:
            if self.number in self.unusable or not self.crew.alone:
                return data
            try:
                return transform(data)
            except Exception as error:
                self._note(self.number, error)
                return data

        return guarded

    def finish(self) -> None:
        """Say what was left out.

        Raises:
            InputError: when a scan was left out, after everything else was done.
        """
        if self.failures:
            first, why = self.failures[0]
            rest = f"; {', '.join(name for name, _ in self.failures[1:])}" if len(self.failures) > 1 else ""
            raise InputError(
                f"{len(self.failures)} of {len(self.entries)} scans could not be used (the others are done): "
                f"{why if first in why else f'{first}: {why}'}{rest}"
            )


class SubjectCache(CacheDataset):
    """MONAI's `CacheDataset` without the subjects that cannot be prepared: they are named, and stop no training.

    Args:
        data: entries of a datalist.
        transform: how a subject is prepared.
        cache_rate: share of the subjects kept in memory. One that is not kept is prepared when it is drawn, and stops the run
            then.
        crew: who prepares them; None for this process alone.

    Attributes:
        failures: subject and reason of each that was left out.

    Raises:
        InputError: when no subject is left.
    """

    def __init__(self, data: Sequence[Any], transform: Any, cache_rate: float = 1.0, crew: Crew | None = None) -> None:
        self.failures: list[tuple[str, str]] = []
        self.crew = crew or Crew()
        super().__init__(data, transform, cache_rate=cache_rate, progress=False)
        usable = [number for number, item in enumerate(self._cache) if item is not None]
        if self.failures and len(self.failures) == len(self.data):
            self.finish()
        self.data = [self.data[number] for number in usable] + list(self.data[self.cache_num :])
        self._cache = [self._cache[number] for number in usable]
        self.cache_num = len(usable)

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        numbers = range(self.cache_num) if indices is None else indices
        cache = []
        for number, item in zip(numbers, self.crew.results(SubjectCache._prepared, self, numbers), strict=True):
            if isinstance(item, Exception):
                # One subject must not stop the others; the message says what it was.
                self.failures.append((str(self.data[number].get("subject", number)), reason(item)))
                print(f"left out: subject {': '.join(self.failures[-1])}", flush=True)
                item = None
            cache.append(item)
        return cache

    def _prepared(self, number: int) -> Any:
        return super()._load_cache_item(number)

    def finish(self) -> None:
        """Say which subjects were left out.

        Raises:
            InputError: when there are any, after everything else was done.
        """
        if self.failures:
            named = "; ".join(f"{subject}: {why}" for subject, why in self.failures)
            raise InputError(f"{len(self.failures)} subjects could not be used: {named}")
