"""Where everything is."""
from django.contrib import admin
from django.urls import path, re_path
from drf_spectacular.views import SpectacularAPIView

from .api.calls import ScheduledCalls
from .api.common import Nowhere
from .api.docs import Docs
from .api.schedules import Schedules
from .api.targets import Targets
from .ops.health import Health
from .ops.metrics import Metrics

handler500 = "scheduler.api.errors.server_error"

urlpatterns = [
    path("", admin.site.admin_view(admin.site.home), name="home"),
    path("api/schedule-api/", ScheduledCalls.as_view({"get": "list", "post": "create"}), name="calls"),
    path("api/schedule-api/<int:pk>/",
         ScheduledCalls.as_view({"get": "retrieve", "delete": "destroy"}), name="call"),
    path("api/schedule-api/again/", ScheduledCalls.as_view({"post": "repeat_all"}), name="calls-again"),
    path("api/schedule-api/<int:pk>/again/", ScheduledCalls.as_view({"post": "repeat"}), name="call-again"),
    path("api/schedule-api/<int:pk>/try-now/", ScheduledCalls.as_view({"post": "try_now"}), name="call-try-now"),
    path("api/schedules/", Schedules.as_view({"get": "list", "post": "create"}), name="schedules"),
    path("api/schedules/<int:pk>/",
         Schedules.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}), name="schedule"),
    path("api/schedules/<int:pk>/run/", Schedules.as_view({"post": "run"}), name="schedule-run"),
    path("api/targets/", Targets.as_view({"get": "list", "post": "create"}), name="targets"),
    path("api/targets/<str:name>/",
         Targets.as_view({"get": "retrieve", "patch": "partial_update", "delete": "destroy"}), name="target"),
    path("api/targets/<str:name>/test/", Targets.as_view({"post": "test"}), name="target-test"),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", Docs.as_view(), name="docs"),
    re_path(r"^api(?:/|$)", Nowhere.as_view()),
    path("healthz", Health.as_view(), name="healthz"),
    path("metrics", Metrics.as_view(), name="metrics"),
    path("admin/", admin.site.urls),
]
