"""Many runs of one file of settings."""
