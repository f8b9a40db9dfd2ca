"""The ceiling: uvicorn, Starlette, orjson and the model's forward, without validation, journal, ids, metrics and learning.

python -m benchmarks.bare PORT [--frozen]
"""

from __future__ import annotations

import argparse
import gc

import orjson
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

LABELS = [str(digit) for digit in range(10)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--frozen", action="store_true", help="freeze the garbage collector, as everlearn does")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).eval()

    async def predict(request: Request) -> Response:
        body = orjson.loads(await request.body())
        with torch.inference_mode():
            scores, picked = model(torch.tensor(body["instances"], dtype=torch.float32)).softmax(1).topk(3)
        answers = [
            {"label": LABELS[rows[0]], "scores": {LABELS[index]: score for index, score in zip(rows, values, strict=True)}}
            for rows, values in zip(picked.tolist(), scores.tolist(), strict=True)
        ]
        return Response(orjson.dumps({"predictions": answers}), media_type="application/json")

    app = Starlette(routes=[Route("/predict", predict, methods=["POST"])])
    if options.frozen:
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 50)
    uvicorn.run(
        app, host="127.0.0.1", port=options.port, loop="uvloop", http="httptools", log_level="warning", access_log=False
    )


if __name__ == "__main__":
    main()
