"""The processes of `everlearn serve`: a light supervisor, the learner, and the API workers."""
