"""Logs of runs that gradwatch did not watch, turned into what a trainer would have sent. Pure but for reading the files."""
