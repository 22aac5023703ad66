"""`sluicegate up`: one broker and every service, each in a process of its own, started, watched and stopped together."""
