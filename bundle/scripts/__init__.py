"""UNA: healthy brain anatomy from any scan, and what deviates from it.

The package is called ``scripts`` inside a bundle, as the MONAI model zoo names it, and ``una`` once
installed with ``pip install .``; it holds the same modules under both names.
"""

__version__ = "0.24.0"
