"""A Django site in one file."""
import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="none")


def answer(request):
    """One request."""
    body = f"pid={os.getpid()}"
    return HttpResponse(body, headers={"Content-Length": len(body)})


urlpatterns = [path("", answer)]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
