"""What touches tensors: reductions, the clip hook, and the one copy to the host."""
