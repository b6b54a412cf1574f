"""The objectives of the field, one file a family."""
