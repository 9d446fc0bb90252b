"""What people do with the model: hold a conversation, transcribe, caption. No terminal."""
