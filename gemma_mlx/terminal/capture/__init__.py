"""What comes from the machine around: its screen, its clipboard, its microphone. Knows no chat, prints nothing."""
