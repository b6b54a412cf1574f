"""From the user's files to token columns: reading, formats, splitting, tokenization, what is kept on disk."""
