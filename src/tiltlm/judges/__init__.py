"""Judges of answers: what gives an answer a number, or says which of two is better; and what such a judge is worth."""
