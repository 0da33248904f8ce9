"""`python -m retrieval_kd` is the command `rkd`."""

from retrieval_kd.cli.app import main

if __name__ == "__main__":
    main()
