"""The package `una` under the name that the configs of the bundle give it, for a bundle that is installed inside of it."""

import sys

import una

sys.modules[__name__] = una
