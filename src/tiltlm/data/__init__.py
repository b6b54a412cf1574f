"""From the user's files to packed batches: reading, formats, splitting, tokenization, packing."""
