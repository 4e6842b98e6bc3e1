"""What commands say to do, in the words of the API: its operations, and their fields. Pure.

The checks are those of the commands, so a refusal may name an option, as `--force`, or a command in
backticks. A program knows neither: it gets the name of the field, and that of the operation.
"""

import re

# The first that a command begins with counts.
_OPERATIONS = (
    ("release publish", "publishRelease"),
    ("release withdraw --undo", "reinstateRelease"),
    ("release withdraw", "withdrawRelease"),
    ("release activate", "activateRelease"),
    ("release rollback", "rollBack"),
    ("release remove", "removeRelease"),
    ("release show", "getRelease"),
    ("release list", "listReleases"),
    ("rollout start", "startRollout"),
    ("rollout abort --revert", "revertRollout"),
    ("rollout abort", "abortRollout"),
    ("rollout pause", "pauseRollout"),
    ("rollout resume", "resumeRollout"),
    ("rollout promote", "promoteRollout"),
    ("rollout change", "changeRollout"),
    ("rollout devices", "listRolloutDevices"),
    ("rollout history", "listRollouts"),
    ("rollout status", "listRollouts"),
    ("group list", "listGroups"),
    ("group add", "addToGroup"),
    ("group remove", "removeFromGroup"),
    ("group delete", "deleteGroup"),
    ("device forget", "forgetDevice"),
    ("device label", "labelDevice"),
    ("devices", "listDevices"),
    ("pin", "pinDevice"),
    ("unpin", "unpinDevice"),
    ("retry", "retryDevice"),
    ("why", "getDevice"),
    ("hold", "holdAll"),
    ("unhold", "endHold"),
    ("audit", "listAudit"),
    ("status", "getStatus"),
)
# Fields that are not called as their options are, with _ for -.
_FIELDS = {
    "soak": "soak_seconds",
    "apply-grace": "grace_seconds",
    "wave-timeout": "wave_timeout_seconds",
}
_OPTIONS = (
    *("force", "reason", "note", "notes", "version", "reports-as", "via", "direct-from", "until"),
    *("group", "waves", "first-group", "groups-too", "max-failures", "min-devices", "count-new"),
    *("held-unknown", *_FIELDS),
)
_OPTION = re.compile(rf"(?<![^\s(])--({'|'.join(sorted(_OPTIONS, reverse=True))})(?![a-z-])")
# What is done otherwise than by a field.
_PHRASES = (
    ("leave --version out to publish it as that", "name it so in the path to publish it as that"),
    ("abort it without --revert", "abort it by `rollout abort`"),
)
_COMMAND = re.compile(r"`([^`\n]+)`")
_OF_GROUP = re.compile("(pin|unpin) [a-z][a-z0-9_-]*(?: .*)?")
_STARTS_ROLLOUT = re.compile(rb"/api/v1/rollouts/[^/]+(?:/preview)?")


def in_api_words(text: str, path: bytes = b"") -> str:
    """Return a message with fields and operations of the API in place of options and commands.

    Args:
        path: that was asked for.
    """
    for said, meant in _PHRASES:
        text = text.replace(said, meant)
    force = "is_forced" if _STARTS_ROLLOUT.fullmatch(path) else "force"
    parts = _COMMAND.split(text)
    return "".join(
        f"`{_operation(each)}`"
        if at % 2
        else _OPTION.sub(lambda m: f"`{_field(m[1], force)}`", each)
        for at, each in enumerate(parts)
    )


def _field(option: str, force: str) -> str:
    return force if option == "force" else _FIELDS.get(option, option.replace("-", "_"))


def _operation(command: str) -> str:
    """Return the operation that does what a command does; the text itself if it is none."""
    if match := _OF_GROUP.fullmatch(command):
        return f"{match[1]}Group"
    for begin, operation in _OPERATIONS:
        if f"{command} ".startswith(f"{begin} "):
            return operation
    return command
