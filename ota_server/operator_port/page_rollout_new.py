"""/rollouts/new: a rollout is filled in, shown as it would be, and begun. I/O.

1. The form: GET /rollouts/new.
2. What it would be, read from the journal, changing nothing: GET /rollouts/preview. Its waves are
   in the form below it, so that what begins is what was shown.
3. It begins: POST /rollouts/new.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ota_server.httpd.reply import Reply
from ota_server.model.quantity import count_of, format_duration
from ota_server.model.refusal import Refused
from ota_server.operations.group_names import group_names
from ota_server.operations.release_facts import releases_to_give
from ota_server.operations.rollout_request import HELD_UNKNOWN, RolloutRequest, read_request
from ota_server.operations.start_rollout import (
    NoSuchDevices,
    RolloutPreview,
    WavePreview,
    left_alone_text,
    preview,
    start,
)
from ota_server.operations.typed_values import BadFields
from ota_server.operator_port.asked import Asked
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.frame import acted, page
from ota_server.operator_port.html import Html, Node, element
from ota_server.operator_port.page_rollout_pieces import limit_facts
from ota_server.operator_port.pieces import (
    Heading,
    check_box,
    choice,
    facts,
    form,
    link,
    more,
    notes,
    number,
    of_product,
    releases_url,
    rollout_url,
    table,
    text_field,
    url_with,
)
from ota_server.operator_port.products_shown import product_ways
from ota_server.operator_port.questions import may_not_act
from ota_server.operator_port.routes import Route
from ota_server.operator_port.sentences import sentences
from ota_server.operator_port.site import DEFAULT, Site
from ota_server.policy.rollout_plan import MOST_NOTE

# The fields of a request, in the order of the form.
_FIELDS = (
    *("version", "group", "note", "waves", "first_group", "groups_too", "max_failures"),
    *("soak_seconds", "grace_seconds", "wave_timeout_seconds", "min_devices", "count_new"),
    *("held_unknown", "is_forced"),
)
# How fields of the form are called, by the options that refusals and warnings name.
_LABELS = {
    "--count-new": "Count new devices too",
    "--first-group": "A first wave of its own",
    "--force": "Roll it out even if it is for another chip or project",
    "--group": "To whom",
    "--groups-too": "Reach groups that have a target of their own too",
    "--waves": "Waves in percent",
}
_IN_THE_WAY = "It cannot begin"
_OPTION = re.compile("--[a-z-]+")
_LONGER_SOAK = re.compile("`[^`]* --soak ([^ `]+)[^`]*` gives")
_WAVES = (
    Heading("Wave"),
    Heading("Adds", is_number=True, title="devices that are offered the release by this wave"),
    Heading(
        "Of these count",
        is_number=True,
        title="known for a day or longer, so that their success or failure is heeded",
    ),
    Heading("Then in all", is_number=True, title="with the waves before it"),
)


def _show(site: Site, asked: Asked) -> Reply:
    """Show the form."""
    _, data_dir = site.named_product(asked.one("product"))
    typed = {name: asked.one(name) for name in _FIELDS}
    return _form_page(site, asked, data_dir, typed)


def _form_page(
    site: Site,
    asked: Asked,
    data_dir: Path,
    typed: Mapping[str, str],
    problems: Mapping[str, str] | None = None,
) -> Reply:
    versions = _versions(data_dir)
    content: Node = element(
        "p",
        "There is no release to roll out yet: ",
        link(releases_url(asked.one("product")), "publish one"),
        ".",
    )
    if versions:
        content = _form(asked, data_dir, versions, typed, problems or {})
    heading = element("h1", "Start a rollout")
    ways = product_ways(site, asked, "/rollouts/new", may_be_all=False)
    # Whoever may only read can see what it would do.
    denied = None if asked.operator.may_act else may_not_act("begin one")
    return page(site, asked, "Start a rollout", (heading, ways, denied, content))


def _versions(data_dir: Path) -> list[str]:
    """Return the releases that can be rolled out, the newest first."""
    found = [
        (each.manifest.time if each.manifest else "", each.version)
        for each in releases_to_give(data_dir)
    ]
    return [version for _, version in sorted(found, reverse=True)]


class _RolloutFields:
    """The fields of the form, with what was typed and what is wrong with it."""

    def __init__(self, typed: Mapping[str, str], problems: Mapping[str, str]) -> None:
        self._typed = typed
        self._problems = problems

    def text(self, words: str, name: str, default: str = "", **attributes: int) -> Html:
        """Return a field for text; `default` counts while it is empty."""
        said = {"placeholder": default or None, **attributes}
        return self._shown(name, text_field(words, name, self._typed[name], kind="text", **said))

    def tick(self, words: str, name: str) -> Html:
        """Return a box to be ticked."""
        return self._shown(name, check_box(words, name, "on", bool(self._typed[name])))

    def choice(
        self, words: str, name: str, options: Iterable[tuple[str, str]], default: str = ""
    ) -> Html:
        """Return a field to choose from."""
        return self._shown(name, choice(words, name, options, self._typed[name] or default))

    def _shown(self, name: str, field: Html) -> Html:
        problem = self._problems.get(name)
        wrong = element("span", f" {problem}", class_="wrong", role="alert") if problem else None
        return element("p", field, wrong)


def _form(
    asked: Asked,
    data_dir: Path,
    versions: list[str],
    typed: Mapping[str, str],
    problems: Mapping[str, str],
) -> Html:
    fields = _RolloutFields(typed, problems)
    groups = [(each, f"group {each}") for each in group_names(data_dir)]
    others = [
        element("p", f"{name}: {text}", class_="problem")
        for name, text in problems.items()
        if name not in _FIELDS
    ]
    return element(
        "form",
        element("input", type="hidden", name="product", value=asked.one("product") or DEFAULT),
        others,
        fields.choice("Release", "version", [(each, each) for each in versions]),
        fields.choice(_LABELS["--group"], "group", [("", "the fleet"), *groups]),
        fields.text("Note, for people", "note", maxlength=MOST_NOTE, size=60),
        more(
            "Waves and limits",
            _limit_fields(fields, groups),
            is_open=any(typed[name] for name in _FIELDS[3:]) or bool(problems),
        ),
        element("p", element("button", "Show what it would do", class_="main"), class_="actions"),
        action="/rollouts/preview",
    )


def _limit_fields(fields: _RolloutFields, groups: Sequence[tuple[str, str]]) -> list[Html]:
    usual = RolloutRequest("v0")
    soak, grace = format_duration(usual.soak_seconds), format_duration(usual.grace_seconds)
    longest = format_duration(usual.wave_timeout_seconds)
    held = zip(HELD_UNKNOWN, ("stay on what they run", "get the target"), strict=True)
    return [
        fields.text(_LABELS["--waves"], "waves", "those that fit the devices", size=24),
        fields.choice(_LABELS["--first-group"], "first_group", [("", "none"), *groups]),
        fields.tick(_LABELS["--groups-too"], "groups_too"),
        fields.text("Most failures", "max_failures", f"{usual.max_failures:g}%", size=12),
        fields.text("Soak: how long devices have to run it well", "soak_seconds", soak, size=12),
        fields.text("Time to apply: until a device reports it", "grace_seconds", grace, size=12),
        fields.text("Time of a wave, at most", "wave_timeout_seconds", longest, size=12),
        fields.text("Devices of a wave that have to update", "min_devices", str(usual.min_devices)),
        fields.tick(f"{_LABELS['--count-new']}: known for less than a day", "count_new"),
        fields.choice(
            "Devices that wait, and report a version that is not a release",
            "held_unknown",
            held,
            usual.held_unknown,
        ),
        fields.tick(_LABELS["--force"], "is_forced"),
    ]


def _typed(asked: Asked) -> dict[str, str]:
    return {name: asked.one(name).strip() for name in _FIELDS}


def _preview(site: Site, asked: Asked) -> Reply:
    product, data_dir = site.named_product(asked.one("product"))
    typed = _typed(asked)
    try:
        request = read_request(typed)
        shown = preview(data_dir, request, site.now_ms())
    except BadFields as problem:
        return _form_page(site, asked, data_dir, typed, problem.problems)
    except NoSuchDevices as problem:
        why = _in_words_of_form([str(problem), *map(left_alone_text, problem.left_alone)])
        return _form_page(site, asked, data_dir, typed, {_IN_THE_WAY: " ".join(why)})
    except Refused as problem:
        why = _in_words_of_form([str(problem)])
        return _form_page(site, asked, data_dir, typed, {_IN_THE_WAY: why[0]})
    title = f"Roll out {shown.plan.version}?"
    content = (
        element("h1", title),
        element("p", _reach_text(shown, product)),
        element("p", shown.plan.note) if shown.plan.note else None,
        notes(_in_words_of_form(shown.warnings), "note warn"),
        notes(_in_words_of_form(map(left_alone_text, shown.left_alone)), "note warn"),
        element("h2", "Waves"),
        table(_WAVES, [_wave(*each) for each in enumerate(shown.waves)]),
        notes(sentences(shown.waits_for), "quiet"),
        facts(limit_facts(shown.plan)),
        _begin_form(asked, product, typed, shown),
    )
    return page(site, asked, title, content)


def _in_words_of_form(texts: Iterable[str]) -> list[str]:
    """Return messages as sentences that name what they are about as the form does."""

    def label(match: re.Match[str]) -> str:
        words = _LABELS.get(match[0])
        return match[0] if words is None else f'"{words}"'

    return sentences(
        _OPTION.sub(label, _LONGER_SOAK.sub(r"a soak of \1 gives", each)) for each in texts
    )


def _reach_text(shown: RolloutPreview, product: str) -> str:
    plan = shown.plan
    whom = f"the group {plan.group}" if plan.group else "the fleet"
    whom += of_product(product)
    parts = [f"It reaches {count_of(shown.devices, 'device')} of {whom}"]
    if shown.new:
        parts.append(f"{number(shown.new)} of them are known for less than a day and do not count")
    if shown.inactive:
        parts.append(
            f"{number(shown.inactive)} more were not heard from for a week, and get it when they "
            "come back"
        )
    instead = f" The target now is {plan.instead_of}." if plan.instead_of else ""
    return "; ".join(parts) + "." + instead


def _wave(at: int, wave: WavePreview) -> tuple[Node, ...]:
    whom = f"{wave.percent:g} %" if wave.percent else f"group {wave.first_group}"
    return f"{at + 1}: {whom}", number(wave.added), number(wave.counting), number(wave.total)


def _begin_form(
    asked: Asked, product: str, typed: Mapping[str, str], shown: RolloutPreview
) -> Html:
    if not asked.operator.may_act:
        return may_not_act("begin it")
    waves = ",".join(f"{percent:g}" for percent in shown.plan.waves)
    fields = {name: value for name, value in typed.items() if value}
    hidden = {**fields, "waves": waves, "product": product or DEFAULT}
    back = url_with("/rollouts/new", [("product", product or DEFAULT), *fields.items()])
    return form(
        asked,
        "/rollouts/new",
        element(
            "p",
            element(
                "button",
                f"Begin: {count_of(shown.waves[0].added, 'device')} first",
                class_="main",
            ),
            " ",
            link(back, "Change something", class_="button"),
            " ",
            link("/rollouts", "Leave it", class_="button"),
            class_="actions",
        ),
        hidden=hidden,
    )


def _begin(site: Site, asked: Asked) -> Reply:
    product, data_dir = site.named_product(asked.typed("product"))
    request = read_request({name: asked.typed(name) for name in _FIELDS})
    started = start(data_dir, request, site.now_ms())
    return acted(site, asked, rollout_url(product, started.plan.id), started.warnings, product)


ROUTES = (
    Route("GET", "/rollouts/new", Access.READ, _show),
    Route("GET", "/rollouts/preview", Access.READ, _preview),
    Route("POST", "/rollouts/new", Access.ACT, _begin),
)
