"""For people: what is planned and how it went, as Django's admin shows it. (It looks for its pages here.)"""
from django.contrib import admin

from . import calls, filters, people, schedules, targets

__all__ = ["calls", "people", "schedules", "targets"]

admin.site.empty_value_display = filters.NOTHING
