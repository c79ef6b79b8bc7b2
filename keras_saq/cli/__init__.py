"""The command line: `keras-saq <command>`."""
