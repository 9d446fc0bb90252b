"""The chat on a terminal: a line that can always be typed into, and above it what has been said."""
