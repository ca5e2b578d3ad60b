"""The corpus: small PPO trainers, healthy and broken on purpose, recorded with the real agent, to judge detectors by.

`python -m benchmarks.corpus record` makes it, `benchmarks.scorecard` scores detection on it; `docs/corpus.md` describes it.
"""
