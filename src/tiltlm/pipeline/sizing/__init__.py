"""What a run takes of memory and time, and what fits."""
