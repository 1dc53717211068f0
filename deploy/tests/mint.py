"""Makes a key and a token with openssl: mint.py FOLDER writes jwks.json and prints a token of app1's user-1."""

import base64
import json
import pathlib
import subprocess
import sys
import time


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


folder = pathlib.Path(sys.argv[1])
key = folder / "key.pem"
key.write_bytes(openssl("genrsa", "2048"))
modulus = bytes.fromhex(openssl("rsa", "-in", str(key), "-noout", "-modulus").decode().strip().split("=")[1])
jwk = {"kty": "RSA", "kid": "k1", "alg": "RS256", "use": "sig", "n": encoded(modulus), "e": "AQAB"}
(folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
parts = [{"alg": "RS256", "kid": "k1"}, {"iss": "app1", "sub": "user-1", "exp": int(time.time()) + 3600}]
signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
print(signed + "." + encoded(openssl("dgst", "-sha256", "-sign", str(key), data=signed.encode())))
