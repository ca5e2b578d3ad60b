"""What stored rows and tables say of the beginning of an anomaly. Pure."""
