"""What tests break, what was lost by it, and which seeded bugs they catch: read in one place.

A test with the mark ``breaks`` tells here what happened to it (`happened`) and what was found
afterwards (`found`). ``make faults`` and ``make mutants`` write it to `docs/reference/faults.md`.
"""
