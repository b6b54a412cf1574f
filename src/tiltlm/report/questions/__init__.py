"""What people ask of every run, answered from its files: one module a question, each a pure function of the run."""
