"""From packed rows to log-probabilities: loading, masks, the scorer, the head, the reference cache."""
