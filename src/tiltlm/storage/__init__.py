"""What lies on this machine between runs, and whether there is room for more."""
