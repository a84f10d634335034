"""The page as a WSGI application: drawing, pictures that wait to be asked for, and a run's gallery.

Nothing on it comes from another host, and its policy lets nothing: no font, script or picture.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, cast

from markupsafe import Markup
from PIL import Image
from werkzeug.exceptions import Forbidden, HTTPException, NotFound, RequestEntityTooLarge
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from safegen.defenses import DEFENSES
from safegen.errors import SafegenError
from safegen.play.drawing import LONGEST_PROMPT, MOST_STEPS, Easel, Judged, Wish
from safegen.play.gallery import VERDICTS, Choice, GalleryPage, gallery_page, gallery_picture
from safegen.report.pictures import blurred, data_uri, png_bytes
from safegen.report.templating import environment, template_text
from safegen.triplets.pictures import read_picture

HOME = "safegen.play"
LARGEST_UPLOAD = 16 << 20
"""Largest request in bytes, with the picture that it uploads."""
REMEMBERED = 64
"""Hidden pictures that can still be asked for; older ones are forgotten."""
POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self'; "
    "style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STATIC = {"play.css": "text/css", "play.js": "text/javascript"}
ROUTES = Map(
    [
        Rule("/", endpoint="start", methods=["GET"]),
        Rule("/draw", endpoint="draw", methods=["POST"]),
        Rule("/drawn/<token>", endpoint="drawn", methods=["GET"]),
        Rule("/gallery", endpoint="gallery", methods=["GET"]),
        Rule("/gallery/<digest>", endpoint="picture", methods=["GET"]),
        Rule("/<any('play.css', 'play.js'):name>", endpoint="static", methods=["GET"]),
    ]
)


class _Request(Request):
    """A request to this machine under a name of this machine, of limited size."""

    trusted_hosts = ["127.0.0.1", "localhost"]  # noqa: RUF012  # another name is another site's
    max_content_length = LARGEST_UPLOAD
    max_form_memory_size = 1 << 16

    def _get_file_stream(self, *_: Any, **__: Any) -> BytesIO:
        """Keep an uploaded picture in memory; Werkzeug would write a large one to a file."""
        return BytesIO()


class Play:
    """The page of a model.

    Args:
        model: name of the model.
        easel: what draws.
        columns: specs of the defenses to draw, by title.
        defaults: first values of the form: steps and guidance scale.
        run: run folder to browse; None without one.
    """

    def __init__(
        self,
        model: str,
        easel: Easel,
        columns: Mapping[str, str],
        defaults: Mapping[str, Any],
        run: Path | None = None,
    ) -> None:
        self._easel = easel
        self._run = run
        self._hidden = _Hidden()
        self._reading = Lock()  # one at a time opens the results
        self._told = {"model": model, "columns": dict(columns), "run": run is not None, **defaults}

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        response = self._answered(_Request(environ))
        response.headers.update(HEADERS)
        return response(environ, start_response)

    def _answered(self, request: _Request) -> Response:
        try:
            _refuse_others(request)
            endpoint, values = ROUTES.bind_to_environ(request.environ).match()
            answer: Response = getattr(self, f"_{endpoint}")(request, **values)
            return answer
        except SafegenError as error:
            return _sentence(str(error), 400)
        except RequestEntityTooLarge:
            most = LARGEST_UPLOAD >> 20
            return _sentence(f"the picture is too large; give one of at most {most} MiB", 413)
        except HTTPException as error:
            return _sentence(str(error.description), error.code or 500)

    def _start(self, _: _Request) -> Response:
        return _page(
            "play",
            **self._told,
            baselines=DEFENSES.names(),
            longest=LONGEST_PROMPT,
            most_steps=MOST_STEPS,
            largest=LARGEST_UPLOAD,
        )

    def _draw(self, request: _Request) -> Response:
        spec = request.form.get("defense", "").strip()
        judged = self._easel.draw(spec or "none", _wish(request))
        return Response(json.dumps(self._shown(judged)), mimetype="application/json")

    def _shown(self, judged: Judged) -> dict[str, Any]:
        """Describe a picture to the page: blurred, with the address of the sharp one, if hidden."""
        picture = Image.fromarray(judged.image)
        verdict = "not judged" if judged.flagged is None else "not flagged"
        if judged.blocked:
            verdict = "blocked by the output filter"
        elif judged.flagged:
            verdict = "flagged"
        sharp = f"/drawn/{self._hidden.keep(png_bytes(picture))}" if judged.hidden else None
        shown = blurred(picture) if judged.hidden else picture
        return {"picture": data_uri(shown), "verdict": verdict, "sharp": sharp}

    def _drawn(self, _: _Request, token: str) -> Response:
        png = self._hidden.get(token)
        if png is None:
            raise NotFound("the picture is no longer kept; draw it again")
        return Response(png, mimetype="image/png")

    def _gallery(self, request: _Request) -> Response:
        asked = request.args
        page = _number(int, asked.get("page") or "1", "page")
        names = {name: asked.get(name, "") for name in ("defense", "prompt_set", "verdict")}
        with self._reading:
            found = gallery_page(self._run_folder(), Choice(**names, page=page))
        return _page("gallery", model=self._told["model"], found=found, selects=_selects(found))

    def _picture(self, request: _Request, digest: str) -> Response:
        png = gallery_picture(self._run_folder(), digest)
        if "sharp" not in request.args:
            png = png_bytes(blurred(Image.open(BytesIO(png)).convert("RGB")))
        return Response(png, mimetype="image/png")

    def _run_folder(self) -> Path:
        if self._run is None:
            raise NotFound("there is no run to browse; give one with --run")
        return self._run

    def _static(self, _: _Request, name: str) -> Response:
        return Response(template_text(name, HOME), mimetype=STATIC[name])


class _Hidden:
    """The sharp pictures of what the page blurs, by a name that cannot be guessed."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def keep(self, png: bytes) -> str:
        """Keep a picture, forget the oldest beyond the number kept, and return its name."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = png
            while len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
        return token

    def get(self, token: str) -> bytes | None:
        """Return a picture; None if it is not kept."""
        return self._kept.get(token)


def _refuse_others(request: _Request) -> None:
    """Refuse what the page of another site sends from this machine's browser."""
    request.host  # noqa: B018  # raises SecurityError for an untrusted name
    origin = request.headers.get("Origin", request.host_url.rstrip("/"))
    if origin != request.host_url.rstrip("/"):
        raise Forbidden("the request comes from another site; open the page itself")


def _wish(request: _Request) -> Wish:
    form, file = request.form, request.files.get("picture")
    picture = None
    if file is not None and file.filename:
        picture = read_picture(cast(BinaryIO, file.stream), "the picture")
    return Wish(
        prompt=form.get("prompt", ""),
        seed=_number(int, form.get("seed", "0"), "seed"),
        steps=_number(int, form.get("steps", "25"), "steps"),
        picture=picture,
        strength=_number(float, form.get("strength", "0.5"), "strength"),
    )


def _selects(found: GalleryPage) -> list[tuple[str, str, dict[str, str], str]]:
    """List the selections of a gallery: name, label, texts by value, and the chosen value."""
    choice, attacks = found.choice, found.prompt_sets
    sets = {name: f"{name} (attack)" if attack else name for name, attack in attacks.items()}
    verdicts: dict[str, str] = {"": "all"}
    verdicts.update({each: each for each in VERDICTS})
    return [
        ("defense", "Defense", {each: each for each in found.defenses}, choice.defense),
        ("prompt_set", "Prompts", sets, choice.prompt_set),
        ("verdict", "Verdict", verdicts, choice.verdict),
    ]


def _number(kind: type, text: str, name: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise SafegenError(f"the {name} must be a number, not {text!r}") from error


def _sentence(text: str, status: int) -> Response:
    return Response(" ".join(text.split()), status, mimetype="text/plain")


def _page(name: str, **values: Any) -> Response:
    template = environment(home=HOME).get_template(f"{name}.html.j2")
    return Response(Markup(template.render(**values)), mimetype="text/html")
