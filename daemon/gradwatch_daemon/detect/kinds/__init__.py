"""One file per anomaly kind: what it declares, and the function that judges."""
