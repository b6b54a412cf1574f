"""From preference pairs to packed token sequences: chat templates, tokenization, cutting, packing."""
