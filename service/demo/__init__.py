"""The demos: each starts a real service, sends it a real stream over HTTP, and shows what came of it."""
