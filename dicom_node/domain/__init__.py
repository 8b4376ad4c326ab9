"""What the words mean. Standard library only: no clock, no disk, no socket, no framework."""
