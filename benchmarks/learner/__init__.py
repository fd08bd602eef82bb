"""The learner, from the events of a stream to a snapshot that serves."""
