"""The path of one update: its input is validated, and a plan is made for it, bound to its arrays and run."""
