"""Telling people who are not looking: what is sent, to whom, and again until it is there."""
