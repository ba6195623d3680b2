"""Where results go: a sink is one file here, and follows ``base.Sink``."""
