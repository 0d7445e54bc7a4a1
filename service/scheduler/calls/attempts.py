"""The attempts at a call, as the API and the admin show them: those that have rows of their own, and the one that lies
in the call's own row."""
from datetime import timedelta

from ..models import Attempt, ScheduledCall
from .ledger import WORKER_LOST

MADE = (ScheduledCall.Status.SUCCEEDED, ScheduledCall.Status.FAILED)


def attempts_of(call, see_request=True):
    """The attempts at `call`, a ScheduledCall, that have ended: list of dicts, by their numbers.

    see_request: whether whoever looks may see what is sent to the call's target, and what that answers. Of a call
        without a target there is no request to see, and its answer is for everybody who may see the call.

    Each has
        number          int, from 1
        started_at      aware datetime, when its request was about to be sent; None if none was, or nobody knows
        ended_at        aware datetime
        duration_ms     float, or None
        outcome         "Succeeded" or "Failed"
        class           of a failure, see calls/outcomes.py; None for a success, and where none was noted
        http_status     int, or None if there was no answer
        error           str, "" for a success
        version         int, of the target as it was then; None if there is none
        address         str, where it went; None if it went nowhere, and without see_request
        phases_ms       {"name", "connect", "tls", "answer", "end": float}, as far as it came
        request         {"method", "url": str, "headers": {name: value}, "body": str or None}, or None
        response        {"headers": {name: value}, "body": str, "truncated": bool}, or None
    No secret of the target is in them.
    """
    found = [_shown(row.number, row.started_at, row.ended_at, row.outcome, row.failure, row.http_status, row.error,
                    row.kept) for row in call.attempts.order_by("number")]
    # Each retry has a row: of a call with several attempts, only the last can be without one, when its worker was
    # lost. `started_at` is the first's.
    last = call.attempts_made or 1
    if call.status in MADE and not any(attempt["number"] >= last for attempt in found):
        found.append(_shown(last, call.started_at if last == 1 else None, call.ended_at, call.status, call.failure,
                            call.http_status, call.error, call.trace or {}))
    if call.target_id is not None and not see_request:
        for attempt in found:
            attempt["request"] = attempt["response"] = attempt["address"] = None
    return found


def durations(calls):
    """How long the last attempt at each of `calls`, a list of ScheduledCall, took: {id: milliseconds}, of those for
    which it is known. One attempt, of most, is in the call's own row; the others are read by one query."""
    found, others = {}, []
    for call in calls:
        if call.status in MADE and (call.attempts_made or 1) == 1:
            if (took := _took(call.started_at, call.ended_at, call.error)) is not None:
                found[call.pk] = took
        elif call.attempts_made:
            others.append(call.pk)
    if others:
        for call_id, *attempt in Attempt.objects.filter(call__in=others).order_by("number").values_list(
                "call_id", "started_at", "ended_at", "error"):
            found[call_id] = _took(*attempt)
    return {call_id: took for call_id, took in found.items() if took is not None}


def _took(started_at, ended_at, error):
    """Milliseconds; None where nobody knows: of a worker that was lost, `ended_at` is when that was noticed."""
    if not (started_at and ended_at) or error == WORKER_LOST:
        return None
    return round((ended_at - started_at) / timedelta(milliseconds=1), 3)


def _shown(number, started_at, ended_at, outcome, failure, http_status, error, kept):
    return {
        "number": number, "started_at": started_at, "ended_at": ended_at,
        "duration_ms": _took(started_at, ended_at, error),
        "outcome": str(outcome), "class": failure or None, "http_status": http_status, "error": error,
        "version": kept.get("version") or None, "address": kept.get("address") or None,
        "phases_ms": kept.get("phases") or {}, "request": _message(kept.get("request")),
        "response": _message(kept.get("response"))}


def _message(kept):
    """A request or an answer with its headers as one object: lines of the same name together, as RFC 9110 (5.3) has
    it."""
    if not kept:
        return None
    headers = kept.get("headers") or []
    together = {}
    for name, value in headers.items() if isinstance(headers, dict) else headers:
        together[name] = f"{together[name]}, {value}" if name in together else value
    return {**kept, "headers": together}
