"""scripts/bench: compares brokers turn by turn. See bench/README.md for how a number is taken."""
