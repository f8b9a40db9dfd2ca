"""The Open Inference Protocol, version 2: the same predictions as /predict, for clients that speak of tensors."""

from service.api.inference.routes import routes

__all__ = ["routes"]
