"""The tiny tasks live beside the tests of the interventions."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "interventions"))
