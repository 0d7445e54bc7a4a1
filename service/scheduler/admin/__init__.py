"""For people: what is planned and how it went, as Django's admin shows it. (It looks for its pages here.)"""
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group, User

from . import calls, filters, schedules, targets
from .forms import OnceAdmin, OpenedForm

__all__ = ["calls", "schedules", "targets"]

admin.site.empty_value_display = filters.NOTHING

admin.site.unregister([User, Group])


class PersonForm(OpenedForm, UserChangeForm):
    """An old page gives nobody a right back that was taken away."""


@admin.register(User)
class PersonAdmin(OnceAdmin, UserAdmin):
    """What the service notes of a user is only looked at; fields to edit would not say their zone."""

    form = PersonForm
    readonly_fields = ["last_login", "date_joined"]


@admin.register(Group)
class TeamAdmin(OnceAdmin, GroupAdmin):
    form = OpenedForm
