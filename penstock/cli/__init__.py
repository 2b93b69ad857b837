"""The command line: a file per noun, heavy imports inside the commands."""
