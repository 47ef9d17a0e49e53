"""The benchmark harness behind `make bench`: standard library only."""
