"""The Python runner of Grid Functions: starts quickly, then hands over to grid_runner."""
import os
import sys

# Under `python3 -I` the script's own directory is not on the path.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import grid_runner  # noqa: E402

if __name__ == "__main__":
    grid_runner.main()
