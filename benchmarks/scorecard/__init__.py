"""How good detection is, on the recorded corpus: `make scorecard`. What each figure means is in docs/scorecard.md."""
