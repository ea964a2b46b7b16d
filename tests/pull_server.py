# SPDX-License-Identifier: MIT
"""A web server on loopback that does what real ones do wrong; for pull_test.sh.

usage: pull_server.py FOLDER

Writes its two addresses to FOLDER/ports, and a line for each request to FOLDER/log: method, host,
path, Range, Authorization. The first part of a path names what goes wrong, `behave` has the list;
how often a path was asked for is counted, so every check takes a file name of its own. The content
of every file is FOLDER/good (FOLDER/other for a changed one), made here.
"""
import hashlib
import os
import random
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LENGTH = 3_000_000
CUT = 700_000


def content(seed):
    return b"GGUF" + random.Random(seed).randbytes(LENGTH - 4)


GOOD, OTHER = content(1), content(2)
SHA256 = hashlib.sha256(GOOD).hexdigest()
LOCK = threading.Lock()
COUNTS = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = self.path.partition("://")[2]  # of a request to a proxy
        path = "/proxied/" + path if path else self.path
        with LOCK:
            self.count = COUNTS[path] = COUNTS.get(path, 0) + 1
            with open(FOLDER + "/log", "a", encoding="ascii") as log:
                print(self.command, self.headers["Host"], path, self.headers["Range"],
                      self.headers["Authorization"], file=log)
        self.close_connection = True
        try:
            self.behave(path)
        except (BrokenPipeError, ConnectionResetError):
            pass

    # -------------------------------------------------------------------------- answering

    def head(self, status, length=None, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def wanted_from(self, etag):
        """The first byte that is asked for; 0 when the condition does not hold."""
        condition = self.headers["If-Range"]
        if not self.headers["Range"] or (condition and condition != etag):
            return 0
        return int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))

    def send(self, data=GOOD, etag='"one"', end=None, **headers):
        """The file as a good server sends it, but no more than up to `end`."""
        first = self.wanted_from(etag)
        if first >= len(data):
            return self.head(416, 0)
        if etag:
            headers["ETag"] = etag
        if first:
            headers["Content_Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        self.head(206 if first else 200, len(data) - first, **headers)
        self.wfile.write(data[first:end])

    def hub(self, path):
        """As the hub answers: a relative redirect, one to another host, and its own headers."""
        gated = path.startswith("/google/")
        token = self.headers["Authorization"]
        if gated and token != "Bearer hf_good":
            return self.head(403 if token else 401, 0, X_Error_Code="GatedRepo")
        if "/resolve/" in path:
            return self.head(307, 0, Location=path.replace("/resolve/", "/cached/"))
        self.head(302, 0, Location=f"http://localhost:{PORTS[1]}/cdn{path}?signature=x",
                  ETag='"of-the-redirect"', X_Linked_Size=LENGTH, X_Linked_Etag=f'"{SHA256}"')

    # --------------------------------------------------------------------- what goes wrong

    def behave(self, path):
        kind = path.split("/")[1]
        linked = {"X_Linked_Size": LENGTH, "X_Linked_Etag": f'"{SHA256}"'}
        first = self.count == 1
        if kind != "cdn" and ("/resolve/" in path or "/cached/" in path):
            self.hub(path)
        elif kind in ("ok", "cdn", "proxied"):
            self.send()
        elif kind == "cut":
            self.send(end=self.wanted_from('"one"') + CUT)
        elif kind == "changed":
            self.send(end=CUT) if first else self.send(OTHER, '"two"')
        elif kind == "mixed":  # a part of the new version, whatever the condition
            if first:
                return self.send(end=CUT)
            del self.headers["If-Range"]
            self.send(OTHER, '"two"')
        elif kind == "whole":  # no ranges
            del self.headers["Range"]
            self.send(end=CUT if first else None)
        elif kind == "anywhere":  # other ranges than were asked for
            if self.headers["Range"]:
                self.head(206, 1000, ETag='"one"', Content_Range=f"bytes 0-999/{LENGTH}")
                return self.wfile.write(GOOD[:1000])
            self.send(end=CUT if first else None)
        elif kind == "nameless":  # nothing to tell versions apart by
            self.send(end=CUT, etag=None) if first else self.send(OTHER, None)
        elif kind == "long":
            self.head(200, LENGTH + 1000, ETag='"one"')
            self.wfile.write(GOOD)
        elif kind == "short":
            self.head(200, LENGTH - 1000, ETag='"one"', **linked)
            self.wfile.write(GOOD[:-1000])
        elif kind == "more":
            self.head(200, ETag='"one"', **linked)
            self.wfile.write(GOOD + b"more")
        elif kind == "less":
            self.head(200, ETag='"one"', **linked)
            self.wfile.write(GOOD[:-1000])
        elif kind == "corrupt":
            data = bytearray(GOOD)
            data[LENGTH // 2] ^= 1
            self.send(bytes(data), **linked)
        elif kind == "endless":
            self.head(200)
            while True:
                self.wfile.write(GOOD)
        elif kind == "html":
            self.head(200, 6)
            self.wfile.write(b"<html>")
        elif kind == "busy":
            if self.count < 3:
                return self.head((429, 503)[self.count - 1], 0, Retry_After=self.count % 2)
            self.send()
        elif kind == "later":
            self.head(429, 0, Retry_After=3600)
        elif kind == "down":
            self.head(500, 0)
        elif kind == "private":
            self.head(401, 0, X_Error_Code="RepoNotFound")
        elif kind == "loop":
            self.head(302, 0, Location=path)
        elif kind == "elsewhere":
            self.head(302, 0, Location="ftp://localhost/file.gguf")
        elif kind == "stall":
            self.send(end=CUT if first else None)
            if first:
                self.wfile.flush()
                time.sleep(5)
        elif kind == "silent":
            time.sleep(5)
        elif kind == "slow":
            begin = self.wanted_from('"one"')
            self.send(end=begin + 1)
            for at in range(begin + 1, LENGTH, 100_000):
                self.wfile.write(GOOD[at:at + 100_000])
                time.sleep(0.05)
        else:
            self.head(404, 0)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET
    request_queue_size = 64


FOLDER = sys.argv[1]
for name, data in (("good", GOOD), ("other", OTHER)):
    with open(f"{FOLDER}/{name}", "wb") as file:
        file.write(data)
SERVERS = [Server(("127.0.0.1", 0), Handler) for _ in range(2)]
PORTS = [server.server_port for server in SERVERS]
with open(FOLDER + "/ports.new", "w", encoding="ascii") as file:
    print(*PORTS, file=file)
os.rename(FOLDER + "/ports.new", FOLDER + "/ports")
threading.Thread(target=SERVERS[1].serve_forever, daemon=True).start()
SERVERS[0].serve_forever()
