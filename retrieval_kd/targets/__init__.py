"""From stored answers to training targets. Start at `combine.py`.

The names of the choices stand here, so that a configuration can be read without importing the rest.
"""

from __future__ import annotations

from typing import Literal

Fusion = Literal["z_scores", "calibrated", "ranks", "agreement", "learned"]
FITTED_ON_DEV = ("calibrated", "learned")  # fusions that are fitted on judged queries
CalibrationMethod = Literal["platt", "isotonic", "temperature"]
