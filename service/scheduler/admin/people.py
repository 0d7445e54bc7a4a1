"""The admin of people: users, and groups, with the permissions that mean something here."""
from functools import reduce
from operator import or_

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import UserChangeForm
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Case, Q, When

from ..site import place
from . import filters
from .forms import OnceAdmin, OpenedForm

# What the migration 0016 makes of them, in words.
GROUPS = ("As they come, a Viewer sees calls, targets and schedules, and why a call failed; an Operator also sees what is sent and "
          "answered, and schedules, moves, cancels and pauses; an Admin may do everything, also with people and tokens.")
MEANINGLESS = {"delete_scheduledcall"}      # nobody deletes a call: each is accounted for

admin.site.unregister([User, Group])


def meant():
    """The permissions that some page or request asks for, those of what the admin has pages of, in the order of the
    pages: QuerySet."""
    of_pages = [Q(content_type__app_label=model._meta.app_label, content_type__model=model._meta.model_name)
                for model in sorted(admin.site._registry, key=lambda model: place(model.__name__))]
    return Permission.objects.filter(reduce(or_, of_pages)).exclude(codename__in=MEANINGLESS).order_by(
        Case(*(When(page, then=number) for number, page in enumerate(of_pages))),
        Case(*(When(codename__startswith=f"{right}_", then=number) for number, right in enumerate(("view", "add", "change", "delete"))),
             default=4), "id")


class Permissions(forms.ModelMultipleChoiceField):
    def label_from_instance(self, permission):
        """As README.md calls it, without the names of tables."""
        return permission.name


class PeopleAdmin(OnceAdmin, filters.SelectedRows):
    """What the admins of users and of groups share: boxes to tick, which a phone has room for too."""

    filter_horizontal = ()

    def formfield_for_manytomany(self, db_field, request=None, **how):
        how["widget"], how["help_text"] = forms.CheckboxSelectMultiple, ""
        if db_field.related_model is Group:
            how["help_text"] = GROUPS
        if db_field.related_model is Permission:
            how |= {"form_class": Permissions, "queryset": meant()}
        return db_field.formfield(**how)


class PersonForm(OpenedForm, UserChangeForm):
    """An old page gives nobody a right back that was taken away."""


@admin.register(User)
class PersonAdmin(PeopleAdmin, UserAdmin):
    """What the service notes of a user is only looked at; fields to edit would not say their zone."""

    form = PersonForm
    readonly_fields = ["last_login", "date_joined"]
    add_fieldsets = (*UserAdmin.add_fieldsets, ("What this user may do", {"fields": ("is_staff", "groups")}))

    def get_changeform_initial_data(self, request):
        return {"is_staff": True} | super().get_changeform_initial_data(request)      # who is to see these pages needs it


@admin.register(Group)
class TeamAdmin(PeopleAdmin, GroupAdmin):
    form = OpenedForm
