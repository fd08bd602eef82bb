"""HTTP, Redis, processes. Thin: it parses, calls `policy`, stores."""
