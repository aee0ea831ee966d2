"""The commands: each turns options into a call, and a result into what is printed."""
