"""`python -m jaxrl_reason`: the command line.

Host side. Reads: nothing. Writes: nothing.
"""

from jaxrl_reason import cli

if __name__ == "__main__":
    cli.run()
