"""An exact solver for small plans."""
