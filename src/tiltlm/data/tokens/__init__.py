"""From examples to token columns: chat templates, tokenization, cutting, what is kept on disk."""
