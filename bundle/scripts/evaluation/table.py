"""Errors of an evaluation as files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.utils import string_list_all_gather

from ..saving import write_whole
from .errors import RegionErrors

__all__ = ["ErrorTable"]


class ErrorTable:
    """Evaluator handler: write ``errors.csv``, one row a case, and ``errors.json``, means and standard deviations.

    Args:
        metric: the metric of the evaluator.
        output_dir: where to write.
    """

    def __init__(self, metric: RegionErrors, output_dir: str | Path) -> None:
        self.metric = metric
        self.output_dir = Path(output_dir)
        self.subjects: list[str] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.subjects.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note_subjects)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def note_subjects(self, engine: Engine) -> None:
        self.subjects.extend(engine.state.batch["subject"])

    def write(self, engine: Engine) -> None:
        subjects = string_list_all_gather(self.subjects)
        errors = self.metric.get_buffer().double().cpu().numpy()
        if idist.get_rank() > 0:
            return
        table = pd.DataFrame(errors, columns=self.metric.columns)
        table.insert(0, "subject", subjects)
        table.index.name = "case"
        write_whole(self.output_dir / "errors.csv", table.to_csv())
        numbers = table[self.metric.columns]
        summary = {
            column: {
                "mean": numbers[column].mean(),
                "std": numbers[column].std(),
                "cases": int(numbers[column].count()),
            }
            for column in self.metric.columns
        }
        write_whole(self.output_dir / "errors.json", json.dumps(summary, indent=1))
        engine.logger.info(f"errors of {len(table)} cases: {self.output_dir / 'errors.csv'}\n{_layout(summary)}")


def _layout(summary: dict) -> str:
    """The means as the paper's Table 1: regions as columns, measures as rows."""
    rows = pd.DataFrame(
        [
            {"measure": f"{measure} ({average})", "region": region, "mean": entry["mean"]}
            for column, entry in summary.items()
            for measure, region, average in [column.split("_")]
        ]
    )
    return rows.pivot(index="measure", columns="region", values="mean")[["F", "H", "D"]].round(4).to_string()
