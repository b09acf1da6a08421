"""popup's command line: python run.py --er-p 0.2 --k 0.5"""

import sys

from models import MODELS
from popup.lab.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], MODELS))
