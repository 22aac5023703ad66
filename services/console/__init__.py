"""Console: the admin API and its page; owns the organisation."""
