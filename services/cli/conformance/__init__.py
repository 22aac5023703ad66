"""`sluicegate conformance`: what Claude Code needs of a gateway, item by item, against any gateway."""
