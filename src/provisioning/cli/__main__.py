"""`python -m provisioning.cli` is `provisioning`, of this very Python."""

from provisioning.cli import main

main()
