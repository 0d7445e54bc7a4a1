#!/usr/bin/env python3
"""Django's command line: `python3 manage.py up` runs the whole service on this machine, which needs nothing but Python."""
import os
import sys


def main():
    import bootstrap                # here, as Ctrl-C may come at any time
    if sys.version_info < (3, 11):
        sys.exit(bootstrap.old(sys.version_info))
    bootstrap.enter(make=sys.argv[1:2] == ["up"] and not {"-h", "--help"} & set(sys.argv))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler.settings")
    # A checkout with nothing configured is somebody trying it out on their own machine. Only this
    # file assumes so: gunicorn and celery started by themselves never get DEBUG unasked.
    if "SECRET_KEY" not in os.environ and "ALLOWED_HOSTS" not in os.environ:
        os.environ.setdefault("DEBUG", "true")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
        from django.db import DatabaseError
    except ImportError as error:
        sys.exit(lacking(error))
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except ModuleNotFoundError as error:
        if "--traceback" in sys.argv or bootstrap.installed():
            raise
        sys.exit(lacking(error))
    except DatabaseError as error:
        if "--traceback" in sys.argv:
            raise
        from django.db import connection
        from scheduler.base.database import reason
        where = f"It is the file {connection.settings_dict['NAME']}; see" if connection.vendor == "sqlite" else "See"
        sys.exit(f"The database cannot be used: {reason(error)}. {where} DATABASE_URL in README.md.")


def lacking(error):
    """What to say to who lacks a package. error: the ImportError"""
    return (f"The packages of requirements.txt are not all installed here ({error}). Run: python3 manage.py up; or, in a "
            "virtual environment of your own: pip install -r requirements.txt")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:       # nothing is half done: the database's transactions are whole
        sys.exit(130)
