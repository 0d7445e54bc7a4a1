"""What the admins of targets and of schedules share: their rows have a name each, somebody who made them, and last calls."""
from django.contrib import admin, messages
from django.db import IntegrityError
from django.http import HttpResponseRedirect

from ..base.moments import moment
from ..models import ScheduledCall
from . import filters, outcomes
from .forms import OnceAdmin


class NamedAdmin(outcomes.LastCalls, OnceAdmin, filters.SelectedRows, admin.ModelAdmin):
    search_fields = ["name"]
    search_help_text = "A part of the name"
    ordering = ["name"]
    list_per_page = 50      # as each reads its last calls
    show_facets = admin.ShowFacets.NEVER

    def get_queryset(self, request):
        return super().get_queryset(request).filter(deleted_at=None)

    def get_object(self, request, object_id, from_field=None):
        """With whether this user may see its calls."""
        if row := super().get_object(request, object_id, from_field):
            row.leads_to_calls = self.sees_calls(request)
        return row

    def sees_calls(self, request):
        return self.admin_site.get_model_admin(ScheduledCall).has_view_permission(request)

    def changeform_view(self, request, object_id=None, form_url="", extra_context=None):
        name = self.opts.verbose_name
        title = {"title": name.capitalize() if object_id else f"Add a {name}"}
        try:
            return super().changeform_view(request, object_id, form_url, title | (extra_context or {}))
        except IntegrityError:
            self.message_user(request, "Somebody has just taken this name; nothing was saved.", messages.ERROR)
        except self.model.DoesNotExist:
            self.message_user(request, "Somebody has just deleted it; nothing was saved.", messages.ERROR)
        return HttpResponseRedirect(request.path)

    @admin.display(description="created")
    def created(self, row):
        return f"{moment(row.created_at)}{row.created_by and f', by {row.created_by}'}"
