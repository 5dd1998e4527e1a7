"""A fake of calvin_env for contract tests (README.md)."""
