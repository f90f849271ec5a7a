"""The comparison of the study notes: its data, trainings and pictures, and the command that runs it."""
