"""The HTTP API of schedules: make, list, look at, change and delete them."""
from django.db import IntegrityError, transaction
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import status, viewsets
from rest_framework.response import Response

from ..base.clock import utcnow
from ..models import Schedule
from ..schedules import planner
from ..tasks import hand_over_soon
from .access import MayDelete
from .calls import THROTTLED, USUAL, CallPages, body, check_parameters
from .common import ProblemSerializer
from .schedule_serializers import EXAMPLE, ScheduleChangeSerializer, ScheduleNewSerializer, ScheduleShownSerializer


class SchedulePages(CallPages):
    ordering = "id"


def _answer(schedules):
    """Them as JSON, a list, with when each comes next."""
    coming = planner.coming(schedules, utcnow())
    for schedule in schedules:
        schedule.coming = coming[schedule.id]
    return ScheduleShownSerializer(schedules, many=True).data


@extend_schema(tags=["schedules"])
class Schedules(viewsets.GenericViewSet):
    queryset = Schedule.objects.filter(deleted_at=None)
    permission_classes = [MayDelete]
    pagination_class = SchedulePages
    serializer_class = ScheduleShownSerializer
    filter_backends = []

    @extend_schema(
        summary="Make a schedule", request=ScheduleNewSerializer,
        examples=[OpenApiExample("Twice on working days", EXAMPLE, request_only=True)],
        responses={201: ScheduleShownSerializer, 400: ProblemSerializer, 409: ProblemSerializer, **USUAL, **THROTTLED})
    def create(self, request):
        """Its calls of the next 48 hours are among the calls when the answer comes. Repeated, the request is
        a 409, as a name can be taken once. Needs the permission `add_schedule`."""
        schedule = ScheduleNewSerializer().changed(Schedule(), body(request))
        return self._save(schedule, status.HTTP_201_CREATED)

    @extend_schema(
        summary="List schedules",
        parameters=[OpenApiParameter("page_size", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100})],
        responses={200: ScheduleShownSerializer(many=True), 400: ProblemSerializer, 404: ProblemSerializer, **USUAL})
    def list(self, request):
        """In the order in which they were made, a page at a time. Needs the permission `view_schedule`."""
        check_parameters(request, [CallPages.cursor_query_param, CallPages.page_size_query_param])
        return self.get_paginated_response(_answer(self.paginate_queryset(self.get_queryset())))

    @extend_schema(summary="One schedule", responses={200: ScheduleShownSerializer, 404: ProblemSerializer, **USUAL})
    def retrieve(self, request, pk):
        """Needs the permission `view_schedule`."""
        return Response(_answer([self.get_object()])[0])

    @extend_schema(
        summary="Change a schedule, or switch it off or on", request=ScheduleChangeSerializer,
        examples=[OpenApiExample("Switch it off", {"on": False}, request_only=True)],
        responses={200: ScheduleShownSerializer, 400: ProblemSerializer, 404: ProblemSerializer, 409: ProblemSerializer,
                   **USUAL, **THROTTLED})
    def partial_update(self, request, pk):
        """Its calls that are Pending are cancelled, and planned anew as it is now. Another name alone
        changes no call. Needs the permission `change_schedule`."""
        data = body(request)            # read before anything is locked: its sender may take for ever
        with transaction.atomic():      # of two at once the second changes what the first has made of it
            self.queryset = planner.locked()
            schedule = ScheduleChangeSerializer().changed(self.get_object(), data)
            return self._save(schedule, status.HTTP_200_OK)

    @extend_schema(
        summary="Delete a schedule",
        responses={204: None, 404: ProblemSerializer, **USUAL, **THROTTLED})
    def destroy(self, request, pk):
        """Its calls that are Pending are cancelled; all its calls stay, and still name it. Needs the
        permission `delete_schedule`."""
        schedule = self.get_object()
        try:
            planner.delete(schedule.pk, request.user.get_username())
        except Schedule.DoesNotExist:
            self.get_object()       # which somebody else has just deleted: a 404
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _save(self, schedule, code):
        try:
            with transaction.atomic():
                hand_over_soon(planner.save(schedule, self.request.user.get_username()))
        except IntegrityError:
            other = self.get_queryset().filter(name=schedule.name).exclude(pk=schedule.pk).first()
            if other is None:
                raise
            return Response(
                {"detail": f'There is a schedule "{schedule.name}" already, its id is {other.pk}: change that one, '
                           "or take another name."}, status.HTTP_409_CONFLICT)
        return Response(_answer([schedule])[0], code)
