"""The screen of the chat: what is finished goes into the scrollback, what is not stays live below it."""
