"""What a run's models answer: asked, sampled, judged, and placed on the frontier."""
