"""The default guard: its data, its figures and its committed folder."""
