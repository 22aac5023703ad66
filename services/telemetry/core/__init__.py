"""Records in, spans and measurements out. Pure."""
