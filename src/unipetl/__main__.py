"""``python -m unipetl`` is the command line."""

from unipetl.cli.main import app

if __name__ == "__main__":
    app(prog_name="unipetl")
