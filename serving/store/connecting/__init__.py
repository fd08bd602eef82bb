"""The way to Redis: one server, a cluster, or a master that Sentinels watch."""
