"""From rows to preference pairs: which columns mean what, recognised or told."""
