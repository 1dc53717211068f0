"""A user's browser: logs in at an OpenID provider (authorization code with PKCE), prints the access token, and at a line on standard
input logs out."""
import base64, hashlib, html, http.cookiejar, json, re, secrets, sys
from urllib import error, parse, request

CALLBACK = "http://127.0.0.1:5/cb"  # never fetched


class Unfollowed(request.HTTPRedirectHandler):
    def redirect_request(self, *_, **__):
        return None


browser = request.build_opener(
    request.ProxyHandler({}), Unfollowed, request.HTTPCookieProcessor(http.cookiejar.CookieJar())
)


def send(url, form=None):
    """Follows redirects up to the callback: the last address, and the page."""
    for _ in range(15):
        data = parse.urlencode(form).encode() if form is not None else None
        try:
            answer = browser.open(request.Request(url, data=data), timeout=20)
        except error.HTTPError as other:
            answer = other
        page, place = answer.read().decode(), answer.headers.get("Location")
        if not (300 <= answer.status < 400 and place):
            return url, page
        url, form = parse.urljoin(url, place), None
        if url.startswith(CALLBACK):
            return url, ""
    sys.exit("too many redirects")


def submit(url, page, **more):
    inputs = (dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(r"<input\b[^>]*>", page))
    form = {one["name"]: html.unescape(one.get("value", "")) for one in inputs if "name" in one}
    form.update({name: value for name, value in more.items() if name in form or name == "logout"})
    action = re.search(r'<form\b[^>]*\baction="([^"]*)"', page) or sys.exit(f"no form at {url}: {page[:500]}")
    return send(parse.urljoin(url, html.unescape(action[1])), form)


provider, user = sys.argv[1:]
_, found = send(provider + "/.well-known/openid-configuration")
found = json.loads(found)
verifier = secrets.token_urlsafe(48)
challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
common = {"client_id": "shop", "redirect_uri": CALLBACK, "resource": "https://api.example.com"}
asked = dict(common, response_type="code", scope="openid api", code_challenge=challenge, code_challenge_method="S256")
url, page = send(found["authorization_endpoint"] + "?" + parse.urlencode(asked))
for _ in range(5):
    if url.startswith(CALLBACK):
        break
    url, page = submit(url, page, login=user, password="x")
code = parse.parse_qs(parse.urlsplit(url).query)["code"][0]
_, tokens = send(found["token_endpoint"], dict(common, grant_type="authorization_code", code=code, code_verifier=verifier))
tokens = json.loads(tokens)
print(tokens["access_token"], flush=True)
sys.stdin.readline()
url, page = send(found["end_session_endpoint"] + "?" + parse.urlencode({"id_token_hint": tokens["id_token"]}))
submit(url, page, logout="yes")
