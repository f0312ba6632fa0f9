"""The operator's words, one module each: `add_to(words)` gives its flags, `run(arguments, environment)` its exit code."""
