"""The document's experiments, in a world where every quantity can be computed exactly."""
