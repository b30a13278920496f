"""`python -m latentplan`, which `accelerate launch -m latentplan` starts on every device."""

from latentplan.cli.app import main

if __name__ == "__main__":
    main()
