"""One module per command of the command line; each holds its click command, called `command`."""
