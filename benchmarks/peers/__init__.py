"""The MLP on everlearn beside other model servers: a file for each server, which runs in a virtual environment of its own."""
