"""Guard models: their cards, and how they are trained, exported and compiled.

Only `cards` is needed to run; everything else is behind an extra.
"""
