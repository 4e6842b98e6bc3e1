"""What went wrong, with its status: here alone exceptions become statuses. I/O: it logs."""

import logging
from collections.abc import Callable
from http import HTTPStatus

from ota_server.httpd.reply import Reply
from ota_server.httpd.taken import TakenConnection, TakesOver
from ota_server.model.refusal import BadPolicy, Misused, Refused
from ota_server.operations.device_filter import BadCursor
from ota_server.operations.device_index import IndexAway
from ota_server.operations.typed_values import BadFields, BadValue
from ota_server.operations.uploads import NoRoom
from ota_server.operator_port.asked import Asked, Malformed
from ota_server.operator_port.authoriser import Denied
from ota_server.operator_port.problems import Problem, problem_reply, with_safe_fields
from ota_server.operator_port.sentences import sentence
from ota_server.operator_port.site import NotHere, Site
from ota_server.system.files import is_full
from ota_server.system.hints import hints
from ota_server.system.locks import Busy

log = logging.getLogger(__name__)


def as_problem(problem: Exception) -> Problem:
    """Return what went wrong with its status."""
    if isinstance(problem, Problem):
        return problem
    if isinstance(problem, Denied):
        detail = hints.paste(problem.detail) if problem.has_commands else problem.detail
        return Problem(
            problem.status,
            detail,
            problem.fields,
            problem.title,
            is_of_sign_in=problem.has_commands,  # those commands make links and tokens
        )
    if isinstance(problem, NotHere):
        return Problem(problem.status, str(problem))
    if isinstance(problem, Malformed | BadCursor | BadFields | BadValue):
        return Problem(HTTPStatus.BAD_REQUEST, str(problem))
    if isinstance(problem, NoRoom):
        return Problem(HTTPStatus.INSUFFICIENT_STORAGE, str(problem))
    if isinstance(problem, Refused | Misused | BadPolicy):
        return Problem(HTTPStatus.CONFLICT, sentence(str(problem)))
    if isinstance(problem, IndexAway):
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(problem), (("Retry-After", "2"),))
    if isinstance(problem, Busy):
        return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(problem), (("Retry-After", "5"),))
    if isinstance(problem, OSError):
        return _of_system(problem)
    log.error("operators' port: a request failed", exc_info=problem)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server has a bug; its log says more.")


def _of_system(problem: OSError) -> Problem:
    log.error("operators' port: %s: %s", problem.filename or "a file", problem.strerror)
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    if is_full(problem):
        status = HTTPStatus.INSUFFICIENT_STORAGE
    what = f"{problem.filename}: " if problem.filename else ""
    said = f"A file cannot be read or written: {what}{problem.strerror}."
    return Problem(status, said)


def answered_by(site: Site, asked: Asked, answer: Callable[[TakenConnection], Reply]) -> TakesOver:
    """Return what has an answer read the body of a request by itself; raise it.

    What `answer` raises becomes a reply, unless the connection is gone.
    """

    def talk(taken: TakenConnection) -> None:
        try:
            if asked.request.expects_continue:
                taken.ask_for_body()
            reply = answer(taken)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as problem:
            reply = problem_reply(site, asked, as_problem(problem))
        taken.reply(with_safe_fields(reply), asked.request.minor_version)

    return TakesOver(talk)
