"""Models that leave a run: exported, merged, with a card."""
