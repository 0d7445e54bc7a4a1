"""The frame of all pages: which there are and in which order, where one lands, and what a page is without its frame.

It stands beside the wing `admin`, whose import registers with it what that wing has.
"""
from django.contrib import admin
from django.contrib.admin.apps import AdminConfig
from django.http import HttpResponseRedirect
from django.urls import reverse

# What is looked at each day comes first.
ORDER = ["scheduler", "auth", "authtoken", "ScheduledCall", "Target", "Schedule", "User", "Group", "TokenProxy"]
NAMES = {"auth": "People", "authtoken": "Access to the API"}      # of what others have named
FRAGMENT = "X-Fragment"     # the header by which static/scheduler/live.js asks for a page without its frame


def place(name):
    return ORDER.index(name) if name in ORDER else len(ORDER)


class Site(admin.AdminSite):
    """Django's, with one list of ways to all pages in place of its sidebar."""

    site_header = site_title = "API Scheduler"
    index_title = "Calls, people and tokens"
    site_url = None                 # there is no other site to view
    enable_nav_sidebar = False      # it takes the list the room for its columns

    def get_app_list(self, request, app_label=None):
        apps = sorted(super().get_app_list(request, app_label), key=lambda app: place(app["app_label"]))
        for app in apps:
            app["models"].sort(key=lambda model: place(model["object_name"]))
        return apps

    def each_context(self, request):
        """With the template around the page, and the ways to others: [{name, url, whether it is here}, ...]."""
        context = super().each_context(request)
        ways = [{"name": model["name"], "url": model["admin_url"], "here": request.path.startswith(model["admin_url"])}
                for app in context["available_apps"] for model in app["models"] if model["admin_url"]]
        return context | {"ways": ways, "frame": "admin/fragment.html" if FRAGMENT in request.headers else "admin/base.html"}

    def home(self, request):
        """The first page that this user may see: the calls, for most."""
        ways = self.each_context(request)["ways"]
        return HttpResponseRedirect(ways[0]["url"] if ways else reverse("admin:index"))


class Admin(AdminConfig):
    """Django's admin, with this site."""

    default_site = "scheduler.site.Site"

    def ready(self):
        super().ready()
        for label, name in NAMES.items():
            self.apps.get_app_config(label).verbose_name = name
