"""Value models: what an arm is expected to do, learned from outcomes."""
