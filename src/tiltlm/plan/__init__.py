"""From examples to what a step computes: laid out once, with the reference's values beside what is scored."""
