"""The loop, its optimizer and schedule, its records, and the checks before it starts."""
