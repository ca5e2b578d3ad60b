"""When the level is raised, and what is wanted of a run."""
