"""From the user's files to rows: what is read, in which encoding and layout of file."""
