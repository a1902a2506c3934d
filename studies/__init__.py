"""What the figures of the docs come from: data sets put together from ``../shared/data``, and the studies made with them."""

from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared" / "data"
