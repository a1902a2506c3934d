"""The reader's desk: MONAI Label around the bundle."""
