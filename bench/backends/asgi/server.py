"""A service as people write it: FastAPI under uvicorn."""

import os

import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def answer():
    return {"answer": "x" * 87}


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
