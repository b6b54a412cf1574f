"""How fast training is, measured on a user's own model and data, beside what others do."""
