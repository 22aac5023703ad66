"""The decisions: plain values in, events and answers out. No clock, socket, random number or client library."""
