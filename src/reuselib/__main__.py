"""`python -m reuselib`."""

import sys

from reuselib.cli import main

if __name__ == "__main__":
    sys.exit(main())
