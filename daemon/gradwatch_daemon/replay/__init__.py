"""Stored runs through the same detection again, bit for bit: what live found, or what another profile would have."""
