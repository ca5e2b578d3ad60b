"""A daemon, a PPO trainer that can be broken on purpose, and a narration of what is seen."""
