"""`python -m lictor`."""

from lictor.cli import main

raise SystemExit(main())
