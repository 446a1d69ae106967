"""Secrets, personal data and innocent lines by format rules, to measure what redaction does.

Everything is made at run time out of random letters, so that no secret stands in any file. The
rules are what is publicly known of each provider's tokens. They share no code with the patterns
that look for them, but an author: what both have wrong is not found here. In a rule `{A20}` are 20
letters and digits, `{h32}` lower hex digits, `{W43}` letters, digits, `_` and `-`, and so on: see
`ALPHABETS`; `{uuid}` is a UUID.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import re
import string
import uuid
from pathlib import Path

from lakelog import train
from lakelog.train import patterns
from tests.support.trainsets import lake_of, recipe, rows
from tests.support.tree import ROOT

DATA = ROOT.parent / "shared" / "data"
ALPHABETS = {
    "A": string.ascii_letters + string.digits,
    "W": string.ascii_letters + string.digits + "_-",
    "h": "0123456789abcdef",
    "H": "0123456789ABCDEF",
    "u": string.ascii_uppercase + string.digits,
    "l": string.ascii_lowercase + string.digits,
    "d": string.digits,
    "b": string.ascii_letters + string.digits + "+/",
    "B": string.ascii_uppercase + "234567",
}

TOKENS: dict[str, str | tuple[str, ...]] = {
    "1password": "ops_eyJ{A240}",
    "adobe": "p8e-{l32}",
    "age": "AGE-SECRET-KEY-1{u58}",
    "airtable": "pat{A14}.{h64}",
    "alibaba": "LTAI{A20}",
    "anthropic": "sk-ant-api03-{W93}AA",
    "artifactory": "AKCp{A69}",
    "asana": "2/{d16}/{d16}:{h32}",
    "atlassian": "ATATT3{W183}={H8}",
    "aws key id": ("AKIA{B16}", "ASIA{B16}"),
    "azure ad": "{A3}8Q~{A34}",
    "azure devops": "{A76}AZDO{A4}",
    "braintree": "access_token$production${l16}${h32}",
    "brevo": "xkeysib-{h64}-{A16}",
    "buildkite": "bkua_{h40}",
    "circleci": "CCIPAT_{A22}_{h40}",
    "clojars": "CLOJARS_{l60}",
    "contentful": "CFPAT-{W43}",
    "databricks": ("dapi{h32}", "dapi{h32}-2"),
    "digitalocean": ("dop_v1_{h64}", "doo_v1_{h64}"),
    "discord": "M{A25}.{A6}.{W38}",
    "discord webhook": "https://discord.com/api/webhooks/{d18}/{W68}",
    "docker": "dckr_pat_{W27}",
    "doppler": ("dp.pt.{A43}", "dp.st.prd.{A43}"),
    "dropbox": "sl.{W136}",
    "duffel": "duffel_live_{W43}",
    "dynatrace": "dt0c01.{B24}.{B64}",
    "easypost": "EZAK{A54}",
    "facebook": "EAAM{A120}",
    "figma": "figd_{W40}",
    "flutterwave": "FLWSECK_TEST-{h32}-X",
    "fly.io": "fo1_{W43}",
    "github": ("ghp_{A36}", "gho_{A36}", "ghs_{A36}"),
    "github fine-grained": "github_pat_{A22}_{A59}",
    "gitlab": ("glpat-{W20}", "glrt-{W20}"),
    "google api": "AIza{W35}",
    "google oauth": ("ya29.{W60}", "GOCSPX-{W28}"),
    "grafana": "glsa_{A32}_{h8}",
    "groq": "gsk_{A52}",
    "heroku": "HRKU-{uuid}",
    "hubspot": "pat-na1-{uuid}",
    "hugging face": "hf_{A34}",
    "infracost": "ico-{A32}",
    "jwt": "eyJ{W30}.eyJ{W60}.{W43}",
    "langfuse": "sk-lf-{uuid}",
    "langsmith": "lsv2_pt_{h32}_{h10}",
    "launchdarkly": "sdk-{uuid}",
    "linear": "lin_api_{A40}",
    "mailchimp": "{h32}-us12",
    "mailgun": "key-{h32}",
    "mapbox": "sk.eyJ{W60}.{W22}",
    "netlify": "nfp_{A36}",
    "new relic": "NRAK-{u27}",
    "notion": ("ntn_{A46}", "secret_{A43}"),
    "npm": "npm_{A36}",
    "nvidia": "nvapi-{W64}",
    "openai": ("sk-proj-{W74}T3BlbkFJ{W74}", "sk-{A20}T3BlbkFJ{A20}", "sk-svcacct-{W100}"),
    "openrouter": "sk-or-v1-{h64}",
    "openshift": "sha256~{W43}",
    "perplexity": "pplx-{A48}",
    "pinecone": "pcsk_{A6}_{A63}",
    "plaid": "access-production-{uuid}",
    "planetscale": "pscale_tkn_{W43}",
    "postman": "PMAK-{h24}-{h34}",
    "prefect": "pnu_{A36}",
    "pulumi": "pul-{h40}",
    "pypi": "pypi-AgEIcHlwaS5vcmc{W150}",
    "razorpay": "rzp_live_{A14}",
    "readme": "rdme_{l70}",
    "replicate": "r8_{A37}",
    "resend": "re_{A8}_{A24}",
    "rubygems": "rubygems_{h48}",
    "scalingo": "tk-us-{W48}",
    "sendgrid": "SG.{W22}.{W43}",
    "sentry": "sntryu_{h64}",
    "sentry dsn": "https://{h32}@o{d6}.ingest.sentry.io/{d7}",
    "shippo": "shippo_live_{h40}",
    "shopify": ("shpat_{h32}", "shpss_{h32}"),
    "slack": ("xoxb-{d12}-{d12}-{A24}", "xoxp-{d12}-{d12}-{d12}-{h32}", "xapp-1-{u11}-{d13}-{h64}"),
    "slack webhook": "https://hooks.slack.com/services/T{u10}/B{u10}/{A24}",
    "sonarqube": "sqp_{h40}",
    "sourcegraph": "sgp_{h16}_{h40}",
    "square": "sq0atp-{W22}",
    "stripe": ("sk_live_{A24}", "rk_test_{A99}", "whsec_{A32}"),
    "supabase": "sbp_{h40}",
    "tailscale": "tskey-auth-{A12}-{A32}",
    "teams webhook": "https://acme.webhook.office.com/webhookb2/{uuid}@{uuid}/IncomingWebhook/{h32}/{uuid}",
    "telegram": "{d10}:AA{W33}",
    "terraform": "{A14}.atlasv1.{W67}",
    "trello": "ATTA{h64}{H8}",
    "twilio": ("AC{h32}", "SK{h32}"),
    "typeform": "tfp_{A44}_{A14}",
    "vault": "hvs.{A90}",
    "xai": "xai-{A80}",
}
"""Tokens that tell by themselves what they are."""

ASSIGNED: dict[str, str | tuple[str, ...]] = {
    "aws secret": ("aws_secret_access_key = {b40}", "AWS_SECRET_ACCESS_KEY={b40}"),
    "azure storage": "AccountName=x;AccountKey={b86}==;EndpointSuffix=core.windows.net",
    "azure sas": "https://x.blob.core.windows.net/c?sv=2024-01-01&sr=b&sig={A43}%3D",
    "algolia": "X-Algolia-API-Key: {h32}",
    "cloudflare": ("CLOUDFLARE_API_TOKEN={W40}", "X-Auth-Key: {h37}"),
    "cohere": "CO_API_KEY={A40}",
    "datadog": ("DD_API_KEY={h32}", "datadog_app_key: {h40}"),
    "deepgram": "Authorization: Token {h40}",
    "fastly": 'fastly_api_token = "{W32}"',
    "heroku legacy": "HEROKU_API_KEY={uuid}",
    "mistral": "MISTRAL_API_KEY={A32}",
    "okta": "Authorization: SSWS 00{W40}",
    "opsgenie": "Authorization: GenieKey {uuid}",
    "pagerduty": "Authorization: Token token=y{W19}",
    "segment": "segment_secret_key={A32}",
    "snyk": "SNYK_TOKEN={uuid}",
    "weights & biases": "WANDB_API_KEY={h40}",
    "x-api-key header": ("X-API-Key: {A32}", "x-api-key: {h40}", '"x-api-key": "{W32}"'),
    "api_key": ("api_key: {A24}", "apiKey={A32}", "'api_key': '{A32}'", "--api-key {A32}"),
    "client secret": ("client_secret={W40}", '"clientSecret":"{A32}"'),
    "access token": ("access_token={A40}&expires_in=3600", '{"refresh_token": "{W43}"}'),
    "password": (
        "password=7!{A10}",
        "Password: {A11}#",
        '"password":"{A12}"',
        "passwd={A8}4;",
        "PGPASSWORD={A12}",
        "db.password = {A14}",
        "spring.datasource.password={A9}-{A4}",
    ),
    "url password": (
        "postgres://bob:{A16}@db.example.com/x",
        "redis://:{A20}@cache:6379/0",
        "https://ci:{A24}@git.example.com/x.git",
    ),
    "cookie": ("Cookie: session={A32}; theme=dark", "Set-Cookie: sid={A40}; Path=/; HttpOnly"),
    "bearer": ("Authorization: Bearer {A40}", "authorization: bearer {A40}"),
    "basic": "Authorization: Basic {b32}==",
}
"""Secrets that tell by what stands before them; the random part must be gone."""

_FIELD = re.compile(r"\{(?:([A-Za-z])(\d+)|uuid)\}")


def filled(rule: str, rng: random.Random) -> tuple[str, list[str]]:
    """Return a text by a rule, and the random parts of it that are secret."""
    secrets: list[str] = []

    def part(match: re.Match[str]) -> str:
        if match[1]:
            made = "".join(rng.choices(ALPHABETS[match[1]], k=int(match[2])))
            if match[1] == "W":  # a token neither begins nor ends with a dash
                made = rng.choice(string.ascii_letters) + made[1:-1] + rng.choice(string.digits)
        else:
            made = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        secrets.append(made)
        return made

    return _FIELD.sub(part, rule), [s for s in secrets if len(s) >= 8]


def pem(rng: random.Random, kind: str, end: bool) -> tuple[str, list[str]]:
    """Return an armored key, with its END line or cut off, and its lines."""
    body = base64.b64encode(rng.randbytes(rng.choice([48, 300, 1200]))).decode()
    lines = [body[n : n + 64] for n in range(0, len(body), 64)]
    head = ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,A0", ""] if rng.random() < 0.3 else []
    armored = "\n".join([f"-----BEGIN {kind}-----", *head, *lines])
    return armored + (f"\n-----END {kind}-----" if end else ""), [x for x in lines if len(x) > 15]


KEYS = (
    "RSA PRIVATE KEY",
    "PRIVATE KEY",
    "EC PRIVATE KEY",
    "OPENSSH PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
    "PGP PRIVATE KEY BLOCK",
)
CONTEXTS = (
    "{}",
    "token {} was used",
    'got "{}" from vault',
    "KEY={}",
    "curl -H 'X: {}' x",
    "({})",
    "export A={} B=1",
    '{{"k": "{}", "n": 1}}',
    "https://x.example/?q={}",
    "- {}",
    "a,{},b",
    "<{}>",
)


def secrets(provider: str, rng: random.Random) -> tuple[str, list[str]]:
    """Return a line with a secret of a provider, and what must be gone from it."""
    if provider in ("pem", "pem without end"):
        text, gone = pem(rng, rng.choice(KEYS), provider == "pem")
        return f"loaded {text}", gone
    if provider in ASSIGNED:
        rules = ASSIGNED[provider]
        text, gone = filled(rules if isinstance(rules, str) else rng.choice(rules), rng)
        return rng.choice(["", "12:30:01 INFO ", "req: "]) + text, gone
    rules = TOKENS[provider]
    text, gone = filled(rules if isinstance(rules, str) else rng.choice(rules), rng)
    return rng.choice(CONTEXTS[:9] if "//" in text else CONTEXTS).format(text), gone


PROVIDERS = (*TOKENS, *ASSIGNED, "pem", "pem without end")


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        number = int(char) * (1 + place % 2)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def mod97(iban: str) -> bool:
    """Whether an IBAN's check digits hold."""
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


def card(rng: random.Random, heads: tuple[str, ...], length: int, gap: str = "") -> str:
    """Return a card number whose check digit holds."""
    body = rng.choice(heads)
    body += "".join(rng.choices(string.digits, k=length - len(body) - 1))
    digits = next(body + c for c in string.digits if luhn(body + c))
    return gap.join(digits[n : n + 4] for n in range(0, length, 4))


def iban(rng: random.Random, gap: str) -> str:
    """Return an IBAN whose check digits hold."""
    country, length = rng.choice([("DE", 22), ("FR", 27), ("NO", 15), ("PL", 28), ("ES", 24)])
    body = "".join(rng.choices(string.digits, k=length - 4))
    made = next(f"{country}{n:02d}{body}" for n in range(2, 99) if mod97(f"{country}{n:02d}{body}"))
    return gap.join(made[n : n + 4] for n in range(0, length, 4))


def _network(rng: random.Random) -> str:
    return ".".join(str(rng.randrange(1, 255)) for _ in range(4))


def _ipv6(rng: random.Random) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address((0x2001 + rng.randrange(0x1000) << 112) | rng.getrandbits(112))


def _short_ipv6(rng: random.Random) -> str:
    head = rng.choice(["2001:db8", "fe80", "fd00:1", "2a02:26f0:10", "64:ff9b"])
    return f"{head}::{rng.getrandbits(16) | 1:x}:{rng.getrandbits(16) | 0x100:x}"


def personal(kind: str, rng: random.Random) -> str:
    """Return one piece of personal data of a kind of `PERSONAL`."""
    a, b, c = rng.randrange(201, 990), rng.randrange(201, 990), rng.randrange(1000, 9999)
    user = rng.choice(["bob", "a.b+c", "j_doe", "x-y.z", "n1"]) + str(rng.randrange(1000))
    names = patterns.names()
    return {
        "email": lambda: f"{user}@{rng.choice(['example.com', 'mail.example.co.uk', 'e-x.org'])}",
        "email, plus": lambda: f"{user}+tag{a}@example.io",
        "email, international user": lambda: (
            rng.choice(["jürgen", "用户", "пётр", "josé", "δοκιμή"]) + f"{a}@example.com"
        ),
        "email, international host": lambda: (
            f"{user}@"
            + rng.choice(
                ["bücher.example", "例子.广告", "пример.рф", "उदाहरण.भारत", "xn--bcher-kva.de"]
            )
        ),
        "phone, E.164": lambda: f"+{rng.choice(['49', '44', '33', '1'])}{a}{b}{c}",
        "phone, spaced": lambda: rng.choice(
            [f"+49 30 {c}{b}", f"+44 20 {c} {c}", f"+1 {a} {b} {c}"]
        ),
        "phone, North American": lambda: rng.choice(
            [f"({a}) {b}-{c}", f"{a}-{b}-{c}", f"{a}.{b}.{c}"]
        ),
        "phone, labelled": lambda: (
            rng.choice(["tel: ", "phone=", "Mobile 0", "fax: 0"]) + f"{a} {b}{c}"
        ),
        "ipv4": lambda: _network(rng),
        "ipv4, port": lambda: f"{_network(rng)}:{c}",
        "ipv6": lambda: str(_ipv6(rng).exploded),
        "ipv6, short": lambda: _short_ipv6(rng),
        "ipv6, mapped ipv4": lambda: f"::ffff:{_network(rng)}",
        "card, Visa": lambda: card(rng, ("4",), 16),
        "card, Mastercard": lambda: card(rng, ("51", "55", "2221"), 16),
        "card, Amex": lambda: card(rng, ("34", "37"), 15),
        "card, Discover or JCB": lambda: card(rng, ("6011", "3528", "65"), 16),
        "card, grouped": lambda: card(rng, ("4", "51", "6011"), 16, rng.choice(" -")),
        "iban": lambda: iban(rng, ""),
        "iban, grouped": lambda: iban(rng, " "),
        "name": lambda: rng.choice(names),
        "name, full": lambda: f"{rng.choice(names)} {rng.choice(names)}",
    }[kind]()


PERSONAL = (
    "email",
    "email, plus",
    "email, international user",
    "email, international host",
    "phone, E.164",
    "phone, spaced",
    "phone, North American",
    "phone, labelled",
    "ipv4",
    "ipv4, port",
    "ipv6",
    "ipv6, short",
    "ipv6, mapped ipv4",
    "card, Visa",
    "card, Mastercard",
    "card, Amex",
    "card, Discover or JCB",
    "card, grouped",
    "iban",
    "iban, grouped",
    "name",
    "name, full",
)
PLACES = ("{}", "from {} at noon", "user {} logged in", '{{"v": "{}"}}', "a={}, b=2", "[{}]")


def person(kind: str, rng: random.Random) -> tuple[str, list[str]]:
    """Return a line with personal data, and what must be gone from it."""
    made = personal(kind, rng)
    gone = made.split(":")[0] if kind == "ipv4, port" else made
    if kind == "phone, labelled":
        gone = made[-8:]
    parts = gone.split() if kind == "name, full" else [gone]
    return rng.choice(PLACES).format(made), parts


def redacted(home: Path, lines: list[str]) -> list[tuple[str, str]]:
    """Return each line as an export with every rule has it, as text and as a member of JSON."""
    events = ({"type": "log", "message": x, "data": {"n": n, "t": x}} for n, x in enumerate(lines))
    query = "SELECT (data->>'$.n')::INT AS n, message, data FROM events ORDER BY seq"
    made = recipe("events", query, redact={"kinds": "all"}, split={"train": 1.0})
    with lake_of(home / "lake", list(events)) as lake:
        train.export(lake, made, str(home / "out"))
    found = sorted(rows(home / "out"), key=lambda row: row["n"])
    return [(row["message"], json.loads(row["data"])["t"]) for row in found]


def is_gone(parts: list[str], text: str) -> bool:
    """Whether no part of a secret is left: none of ten characters in a row, nor a short one."""
    for part in parts:
        pieces = [part[n : n + 10] for n in range(0, len(part) - 9, 5)] + [part[-10:]]
        if any(piece in text for piece in (pieces if len(part) >= 12 else [part])):
            return False
    return True
