"""Speed of the engine and of training, as ratios to the machine, measured in one run: ``make bench``."""
