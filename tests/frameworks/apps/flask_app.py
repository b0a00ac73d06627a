"""A Flask app."""
import os

from flask import Flask

app = Flask(__name__)


@app.get("/")
def answer():
    """One request."""
    return f"pid={os.getpid()}"
