"""What is measured: one module per place in the update that the trainer tells us about."""
