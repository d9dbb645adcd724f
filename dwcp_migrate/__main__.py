"""Entry point of the `dwcp-migrate` command."""

from dwcp_migrate.cli import main

if __name__ == "__main__":
    main()
