"""The service: stores, learner, engine, HTTP API and command line around `models`."""
