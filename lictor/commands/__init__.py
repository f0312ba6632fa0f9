"""The operator's words, one module each: `add_to(words)` gives its flags, and with them what runs it."""
