"""What comes from the machine: its screen, its clipboard, its microphone. Knows of no chat and prints nothing."""
