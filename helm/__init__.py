"""The chart, and what makes its schema and README from its values."""
