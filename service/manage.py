#!/usr/bin/env python
"""Django's command line: `python manage.py up` runs the whole service on this machine."""
import os
import sys


def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler.settings")
    # A checkout with nothing configured is somebody trying it out on their own machine. Only this
    # file assumes so: gunicorn and celery started by themselves never get DEBUG unasked.
    if "SECRET_KEY" not in os.environ and "ALLOWED_HOSTS" not in os.environ:
        os.environ.setdefault("DEBUG", "true")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError:
        sys.exit("Django is not installed here. Run: pip install -r requirements.txt")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
