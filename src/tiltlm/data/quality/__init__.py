"""What the data look like: repeats, likeness across the split, lengths, cuts, marks, damage and scripts."""
