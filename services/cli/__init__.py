"""The program `sluicegate`: the supervisor of everything on one machine, and the console's API on the command line."""
