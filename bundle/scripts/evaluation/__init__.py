"""What is right of a score: how healthy brains fare, and the calibration that follows from it. Knows nothing of networks."""

from .calibration import ConformalLimit, lowest_limit, split_conformal
from .gate import HealthyGate, findings, gate_summary

__all__ = ["ConformalLimit", "HealthyGate", "findings", "gate_summary", "lowest_limit", "split_conformal"]
