"""Which arms can be called now: what is out, what is under way, what is used up."""
