"""`python -m sonant` is `sonant`, for torchrun and the like."""

import sys

from sonant.cli import main

sys.exit(main())
