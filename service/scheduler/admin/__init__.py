"""For people: what is planned and how it went, as Django's admin shows it. (It looks for its pages here.)"""
from . import calls, schedules  # noqa: F401
