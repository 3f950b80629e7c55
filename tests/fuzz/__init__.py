"""Fuzz targets: one function each, driven by atheris at length and by hypothesis in `make test`."""
