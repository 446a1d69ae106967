"""Tokens that tell by their form which provider issued them, as their issuers document them.

Each format has a `hint`, a cheap pattern that every token of it contains, and a `pattern` of the
whole token. Formats were written from the public documentation of each provider; tokens without a
form of their own are found by what stands before them, see `patterns`.
"""

from __future__ import annotations

from dataclasses import dataclass

_HEX, _ALNUM, _WORD = "[0-9a-f]", "[A-Za-z0-9]", "[A-Za-z0-9_-]"
_UUID = rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"


@dataclass(frozen=True)
class Format:
    """One token format; `hint` and `pattern` are RE2."""

    provider: str
    hint: str
    pattern: str


def _prefix_format(provider: str, prefix: str, rest: str) -> Format:
    """A token format with a distinctive prefix at the start of a word."""
    return Format(provider, rf"\b(?:{prefix})", rf"\b(?:{prefix}){rest}")


FORMATS = (
    _prefix_format("1password", "ops_eyJ", f"{_WORD}{{100,}}={{0,2}}"),
    _prefix_format("adobe", "p8e-", r"[A-Za-z0-9]{32}\b"),
    _prefix_format("age", "AGE-SECRET-KEY-1", r"[0-9A-Z]{58}\b"),
    Format("airtable", rf"\bpat{_ALNUM}{{14}}\.", rf"\bpat{_ALNUM}{{14}}\.{_HEX}{{64}}\b"),
    _prefix_format("alibaba", "LTAI", rf"{_ALNUM}{{12,24}}\b"),
    _prefix_format("anthropic", "sk-ant-", f"{_WORD}{{20,}}"),
    _prefix_format("artifactory", "AKCp", rf"{_ALNUM}{{69}}\b"),
    Format("asana", r"\b[0-2]/[0-9]{12}", rf"\b[0-2]/[0-9]{{12,}}(?:/[0-9]+)?:{_HEX}{{32}}\b"),
    _prefix_format("atlassian", "ATATT3|ATCTT3|ATBB|ATSTT3", "[A-Za-z0-9_=-]{24,}"),
    _prefix_format("aws", "AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA", r"[A-Z0-9]{16}\b"),
    _prefix_format("aws bedrock", "ABSK", "[A-Za-z0-9+/]{60,}={0,2}"),
    Format("azure ad", r"[0-9]Q~", r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),
    Format("azure devops", "AZDO", rf"\b{_ALNUM}{{76}}AZDO{_ALNUM}{{4}}\b"),
    _prefix_format(
        "braintree", r"access_token\$(?:production|sandbox)\$", rf"[0-9a-z]{{16}}\${_HEX}{{32}}\b"
    ),
    _prefix_format("brevo", "xkeysib-|xsmtpsib-", rf"{_HEX}{{64}}-{_ALNUM}{{16}}\b"),
    _prefix_format("buildkite", "bkua_|bkaj_|bkct_", rf"{_HEX}{{40}}\b"),
    _prefix_format("circleci", "CCIPAT_|CCIPRJ_", rf"{_ALNUM}{{22}}_{_HEX}{{40}}\b"),
    _prefix_format("clojars", "CLOJARS_", r"[0-9a-z]{60}\b"),
    _prefix_format("cloudflare", r"v1\.0-[0-9a-f]{8}", rf"{_HEX}{{16}}-{_HEX}{{146}}\b"),
    _prefix_format("contentful", "CFPAT-", f"{_WORD}{{43}}"),
    _prefix_format("databricks", "dapi[0-9a-f]{8}", rf"{_HEX}{{24}}(?:-[0-9])?\b"),
    _prefix_format("digitalocean", "do[opr]_v1_", rf"{_HEX}{{64}}\b"),
    Format(
        "discord",
        rf"\b[MNO]{_WORD}{{23,27}}\.",
        rf"\b[MNO]{_WORD}{{23,27}}\.{_WORD}{{6}}\.{_WORD}{{27,40}}",
    ),
    Format(
        "discord webhook",
        "/api/webhooks/[0-9]",
        rf"https://(?:[a-z]+\.)?discord(?:app)?\.com/api/webhooks/[0-9]{{17,20}}/{_WORD}{{60,}}",
    ),
    _prefix_format("docker", "dckr_[po]at_", f"{_WORD}{{27,}}"),
    _prefix_format("doppler", r"dp\.(?:pt|st|ct|sa|scim|audit)\.", "[A-Za-z0-9._-]{40,}"),
    _prefix_format("dropbox", r"sl\.[A-Za-z0-9]", f"{_WORD}{{60,}}"),
    _prefix_format("duffel", "duffel_(?:live|test)_", f"{_WORD}{{43}}"),
    _prefix_format("dynatrace", r"dt0[a-z][0-9]{2}\.", r"[A-Z0-9]{24}\.[A-Z0-9]{64}\b"),
    _prefix_format("easypost", "EZ[AT]K", rf"{_ALNUM}{{54}}\b"),
    _prefix_format("facebook", "EAA[MC]|EAACEdEose0cBA", rf"{_ALNUM}{{80,}}\b"),
    _prefix_format("figma", "fig[dou]r?_", f"{_WORD}{{40,}}"),
    _prefix_format("flutterwave", "FLW(?:SEC|PUB)K(?:_TEST)?-", rf"{_HEX}{{12,32}}(?:-X)?\b"),
    _prefix_format("fly.io", "fo1_|fm1[ar]_|fm2_", "[A-Za-z0-9+/_-]{43,}={0,3}"),
    _prefix_format("frame.io", "fio-u-", f"{_WORD}{{64}}"),
    _prefix_format("github", "gh[pousr]_", rf"{_ALNUM}{{36,255}}\b"),
    _prefix_format("github fine-grained", "github_pat_", r"[A-Za-z0-9_]{22,255}\b"),
    _prefix_format(
        "gitlab", "gl(?:pat|dt|rt|rtr|cbt|ptt|ft|soat|imt|agent|oas|ffct)-", r"[A-Za-z0-9_.-]{20,}"
    ),
    _prefix_format("google api", "AIza", f"{_WORD}{{35}}"),
    _prefix_format("google oauth", r"ya29\.|GOCSPX-", "[A-Za-z0-9._-]{20,}"),
    _prefix_format("grafana", "glsa_|glc_eyJ", "[A-Za-z0-9_+/-]{40,}={0,2}"),
    _prefix_format("groq", "gsk_", rf"{_ALNUM}{{40,}}\b"),
    _prefix_format("heroku", "HRKU-", f"{_WORD}{{36,}}"),
    _prefix_format("hubspot", "pat-(?:na|eu)[0-9]-", rf"{_UUID}\b"),
    _prefix_format("hugging face", "hf_|api_org_", rf"{_ALNUM}{{30,}}\b"),
    _prefix_format("infracost", "ico-", rf"{_ALNUM}{{32}}\b"),
    _prefix_format("jwt", "eyJ", rf"{_WORD}{{8,}}\.eyJ{_WORD}{{8,}}\.{_WORD}*"),
    _prefix_format("langfuse", "[sp]k-lf-", rf"{_UUID}\b"),
    _prefix_format("langsmith", "lsv2_[ps][tk]_", rf"{_HEX}{{32}}_{_HEX}{{10}}\b"),
    _prefix_format(
        "launchdarkly", "(?:sdk|api|mob)-[0-9a-f]{8}-", rf"(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}\b"
    ),
    _prefix_format("linear", "lin_(?:api|oauth)_", rf"{_ALNUM}{{40,64}}\b"),
    Format("mailchimp", r"[0-9a-f]-us[0-9]", rf"\b{_HEX}{{32}}-us[0-9]{{1,2}}\b"),
    _prefix_format("mailgun", "key-[0-9a-f]{8}", rf"{_HEX}{{24}}\b"),
    Format("mapbox", r"[sp]k\.eyJ", rf"\b[sp]k\.eyJ{_WORD}{{40,}}\.{_WORD}{{20,}}"),
    _prefix_format("netlify", "nf[pokcu]_", rf"{_ALNUM}{{36,40}}\b"),
    _prefix_format("new relic", "NR(?:AK|JS|II|RA|BR)-", f"{_WORD}{{19,}}"),
    _prefix_format("notion", "ntn_|secret_", rf"{_ALNUM}{{43,}}\b"),
    _prefix_format("npm", "npm_", rf"{_ALNUM}{{36}}\b"),
    _prefix_format("nvidia", "nvapi-", f"{_WORD}{{40,}}"),
    _prefix_format("octopus", "API-[A-Z0-9]{8}", r"[A-Z0-9]{17,18}\b"),
    _prefix_format("openai", "sk-(?:proj|svcacct|admin|or-v1|None)-", f"{_WORD}{{20,}}"),
    _prefix_format("openai legacy", "sk-[A-Za-z0-9]{8}", rf"{_ALNUM}{{12,}}\b"),
    _prefix_format("openshift", "sha256~", f"{_WORD}{{43}}"),
    _prefix_format("perplexity", "pplx-", rf"{_ALNUM}{{48,}}\b"),
    _prefix_format("pinecone", "pcsk_", r"[A-Za-z0-9]{5,8}_[A-Za-z0-9]{50,}\b"),
    _prefix_format("plaid", "access-(?:sandbox|production|development)-", rf"{_UUID}\b"),
    _prefix_format("planetscale", "pscale_(?:tkn|pw|oauth|app_secret)_", r"[A-Za-z0-9_=.-]{32,64}"),
    _prefix_format("postman", "PMAK-", rf"{_HEX}{{24}}-{_HEX}{{34}}\b"),
    _prefix_format("prefect", "pn[ub]_", rf"{_ALNUM}{{36}}\b"),
    _prefix_format("pulumi", "pul-", rf"{_HEX}{{40}}\b"),
    _prefix_format("pypi", "pypi-", f"{_WORD}{{16,}}"),
    _prefix_format("razorpay", "rzp_(?:live|test)_", rf"{_ALNUM}{{14,}}\b"),
    _prefix_format("readme", "rdme_", r"[0-9a-z]{70}\b"),
    _prefix_format("replicate", "r8_", rf"{_ALNUM}{{37}}\b"),
    _prefix_format("resend", "re_[A-Za-z0-9]{8}_", rf"{_ALNUM}{{24}}\b"),
    _prefix_format("rubygems", "rubygems_", rf"{_HEX}{{48}}\b"),
    _prefix_format("scalingo", "tk-us-", f"{_WORD}{{48}}"),
    _prefix_format("sendgrid", r"SG\.", rf"{_WORD}{{16,}}\.{_WORD}{{16,}}"),
    _prefix_format("sentry", "sntry[us]_", "[A-Za-z0-9_+/=-]{40,}"),
    Format(
        "sentry dsn", r"://[0-9a-f]{32}@", rf"://{_HEX}{{32}}(?::{_HEX}{{32}})?@[a-z0-9.-]+/[0-9]+"
    ),
    _prefix_format("shippo", "shippo_(?:live|test)_", rf"{_HEX}{{40}}\b"),
    _prefix_format("shopify", "shp(?:at|ca|pa|ss)_", r"[0-9a-fA-F]{32}\b"),
    _prefix_format("slack", "xox[abeoprs][.-]|xapp-[0-9]-", "[A-Za-z0-9.-]{10,}"),
    Format(
        "slack webhook",
        r"hooks\.slack",
        r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,}",
    ),
    _prefix_format("sonarqube", "sq[pua]_", rf"{_HEX}{{40}}\b"),
    _prefix_format("sourcegraph", "sgp_", rf"(?:(?:{_HEX}{{16}}|local)_)?{_HEX}{{40}}\b"),
    _prefix_format("square", "EAAA|sq0[a-z]{3}-", f"{_WORD}{{22,}}"),
    _prefix_format("stripe", "[srp]k_(?:live|test)_|whsec_", r"[A-Za-z0-9+/=]{16,}"),
    _prefix_format("supabase", "sbp_|sb_secret_", r"[A-Za-z0-9_]{30,}"),
    _prefix_format("tailscale", "tskey-[a-z]+-", "[A-Za-z0-9-]{20,}"),
    Format(
        "teams webhook",
        r"webhook\.office\.com",
        r"https://[a-z0-9-]+\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/-]{60,}",
    ),
    Format("telegram", ":AA", rf"\b[0-9]{{8,10}}:AA{_WORD}{{33}}"),
    _prefix_format("tencent", "AKID", rf"{_ALNUM}{{32}}\b"),
    Format("terraform", r"\.atlasv1\.", rf"\b{_ALNUM}{{14}}\.atlasv1\.[A-Za-z0-9_=-]{{60,70}}"),
    _prefix_format("trello", "ATTA[0-9a-f]{8}", rf"{_HEX}{{56}}[0-9A-F]{{8}}\b"),
    _prefix_format("twilio", "(?:AC|SK)[0-9a-f]{8}", rf"{_HEX}{{24}}\b"),
    _prefix_format("twitter", "AAAAAAAAAAAAAAAAAAAAA", "[A-Za-z0-9%]{60,}"),
    _prefix_format("typeform", "tfp_", r"[A-Za-z0-9_.=-]{40,}"),
    _prefix_format("vault", r"hv[sbr]\.", f"{_WORD}{{24,}}"),
    _prefix_format("weights & biases", "wandb_v1_", r"[A-Za-z0-9_]{40,}"),
    _prefix_format("xai", "xai-", rf"{_ALNUM}{{70,}}\b"),
    _prefix_format("yandex", "AQVN|t1\\.[A-Z0-9a-z_-]{8}", "[A-Za-z0-9_.=-]{35,}"),
)


GROUP = 12
"""Formats in one pattern: RE2 is fast while the automaton of a pattern is small."""


def groups() -> list[tuple[str, str]]:
    """Return hints and patterns, some formats in each."""
    parts = [FORMATS[place : place + GROUP] for place in range(0, len(FORMATS), GROUP)]
    return [("|".join(f.hint for f in part), "|".join(f.pattern for f in part)) for part in parts]
