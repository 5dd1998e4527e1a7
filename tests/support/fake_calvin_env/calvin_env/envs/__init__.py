"""A fake of calvin_env.envs for contract tests."""
