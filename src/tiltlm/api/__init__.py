"""What `import tiltlm` gives: the functions behind its public names."""
