"""What a difference between methods is worth on so few scans."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

__all__ = ["bootstrap_interval", "holm", "paired_tests"]


def bootstrap_interval(values: np.ndarray, level: float = 0.95, resamples: int = 5000) -> tuple[float, float]:
    """Percentile interval of the mean over scans, by drawing scans with replacement.

    Args:
        values: one a scan.
        level: of confidence.
        resamples: draws.
    """
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=level,
        n_resamples=resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's correction of p values for their number.

    References:
        S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(steps, 1.0)
    return corrected


def paired_tests(table: pd.DataFrame) -> pd.DataFrame:
    """Compare every pair of methods on the same scans: Wilcoxon's signed-rank test, two-sided, corrected by `holm`.

    Args:
        table: a row a scan, a column a method.

    Returns:
        ``one``, ``other``, ``scans`` that both were judged on, ``difference`` of the means, ``p`` and ``p_holm``.
    """
    rows = []
    for number, one in enumerate(table.columns):
        for other in table.columns[number + 1 :]:
            pair = table[[one, other]].dropna()
            apart = (pair[one] - pair[other]).to_numpy()
            p = float(stats.wilcoxon(apart).pvalue) if len(apart) and np.any(apart != 0) else 1.0
            rows.append(
                {
                    "one": one,
                    "other": other,
                    "scans": len(pair),
                    "difference": float(apart.mean()) if len(apart) else 0.0,
                    "p": p,
                }
            )
    found = pd.DataFrame(rows, columns=["one", "other", "scans", "difference", "p"])
    found["p_holm"] = holm(found["p"].to_numpy())
    return found
