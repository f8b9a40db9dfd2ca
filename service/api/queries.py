"""What every route asks of its query."""

from __future__ import annotations

from fastapi import Request

from service.api.problems import INVALID, Fault, Problem


def each_once(request: Request) -> None:
    """Raise Problem 422 for a parameter of the route that is given twice: which of them counts would be a guess."""
    if not request.scope["query_string"]:
        return
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    given = [name for name, _ in request.query_params.multi_items() if name in known]
    for name in dict.fromkeys(given):
        if given.count(name) > 1:
            detail = f"{name} is given {given.count(name)} times in the query"
            raise Problem(INVALID, detail, faults=[Fault(pointer="", detail=detail)])
