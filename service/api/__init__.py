"""The HTTP API, one file per group of routes; `app.create_app` puts it together."""
