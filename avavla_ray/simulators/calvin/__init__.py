"""CALVIN (mees/calvin_env on PyBullet) behind the `Simulator` interface: scenes A to D, 34 tasks, chains of five."""
