"""The page that shows the API's document, for people."""
from django.contrib.auth.views import redirect_to_login
from django.core import exceptions
from django.urls import reverse
from drf_spectacular.views import SpectacularSwaggerView
from rest_framework.exceptions import NotAuthenticated, PermissionDenied


class Docs(SpectacularSwaggerView):
    """Whoever has not logged in is asked to; who may not see it reads so on a page."""

    url_name = "schema"
    template_name = "scheduler/docs.html"

    def handle_exception(self, exc):
        if isinstance(exc, NotAuthenticated):
            return redirect_to_login(self.request.get_full_path(), reverse("admin:login"))
        if isinstance(exc, PermissionDenied) and self.request.auth is None:     # not by a token, as programs come
            raise exceptions.PermissionDenied(str(exc.detail)) from exc
        return super().handle_exception(exc)
