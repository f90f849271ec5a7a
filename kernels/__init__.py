"""Everything that Numba compiles, and nothing else: it knows memory and numbers, never dicts or classes."""
