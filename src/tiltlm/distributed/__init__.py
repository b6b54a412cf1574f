"""Several processes at one job: what they tell each other, and how they share out a model. All collectives are here."""
