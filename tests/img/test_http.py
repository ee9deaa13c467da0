# SPDX-License-Identifier: MIT
"""Files of web servers: a small server in Python answers range requests, or does not."""
import base64
import filecmp
import http.server
import os
import re
import ssl
import threading

import pytest

from imglib import QEMU, img, run, sparse_file
from test_tls import authority

MIB = 1 << 20


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves server.data at /image; other paths do odd things."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        data, m = self.server.data, re.match(r"bytes=(\d+)-(\d+)$", self.headers.get("Range", ""))
        self.server.seen.append((self.path, m and (int(m[1]), int(m[2])), self.headers.get("Cookie"), self.headers.get("Authorization")))
        if self.path == "/moved":
            self.answer(302, Location="/image")
        elif self.path == "/to-a-file":
            self.answer(302, Location="file:///etc/passwd")
        elif self.path == "/whole":
            self.answer(200, data)
        elif self.path == "/private" and self.headers.get("Authorization") != "Basic " + base64.b64encode(b"me:sesame").decode():
            self.answer(401, WWW_Authenticate='Basic realm="x"')
        elif self.path == "/slow":
            self.server.over.wait()
        elif self.path not in ("/image", "/private", "/short", "/long", "/lies", "/later", "/replaced", "/tagged", "/shrunk", "/mirrors", "/shifted") or not m:
            self.answer(404)
        else:
            a, b = int(m[1]), min(int(m[2]), len(data) - 1)
            body = data[a:b + 1]
            if self.path == "/later" and a:
                self.answer(503)
                return
            if self.path in ("/replaced", "/tagged", "/shrunk", "/mirrors"):
                tag, date = '"%d"' % a, "Thu, 01 Jan 1970 00:00:0%d GMT" % (a > 0)
                more = {"/replaced": {"Last_Modified": date}, "/tagged": {"ETag": tag}, "/mirrors": {"ETag": tag, "Last_Modified": date[:-5] + "9 GMT"}}
                self.answer(206, body, Content_Range="bytes %d-%d/%d" % (a, b, len(data) - (512 if self.path == "/shrunk" and a else 0)), **more.get(self.path, {}))
                return
            if self.path == "/shifted" and (a or b):
                self.answer(206, body, Content_Range="bytes %d-%d/%d" % (a + 512, b + 512, len(data)))
                return
            body = {"/short": body[:-1] if a or b else body, "/long": body + b"x" * 1000}.get(self.path, body)
            total = "99999999999999999999999" if self.path == "/lies" else len(data)
            self.answer(206, body, Content_Range="bytes %d-%d/%s" % (a, b, total))


@pytest.fixture(name="web")
def web_server():
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    s.seen, s.daemon_threads, s.over = [], True, threading.Event()
    threading.Thread(target=s.serve_forever, daemon=True).start()
    s.url = "http://127.0.0.1:%d" % s.server_address[1]
    yield s
    s.over.set()
    s.shutdown()
    s.server_close()


def test_an_image_is_copied(tmp_path, web):
    raw = sparse_file(tmp_path / "raw", 5 * MIB, seed=4)
    web.data = raw.read_bytes()
    for path in ("/image", "/moved"):
        img("convert", "-f", "raw", "-O", "raw", "--force", web.url + path, tmp_path / "out")
        assert filecmp.cmp(raw, tmp_path / "out", shallow=False)
    img("convert", "-f", "raw", "-O", "qcow2", raw, tmp_path / "q")
    web.data = (tmp_path / "q").read_bytes() + bytes(-(tmp_path / "q").stat().st_size % 512)
    img("convert", "-f", "qcow2", "-O", "raw", "--force", web.url + "/image", tmp_path / "out")
    assert filecmp.cmp(raw, tmp_path / "out", shallow=False)
    img("create", "-f", "qcow2", "-b", web.url + "/image", "-F", "qcow2", tmp_path / "top")
    img("convert", "-f", "qcow2", "-O", "raw", "--force", tmp_path / "top", tmp_path / "out")
    assert filecmp.cmp(raw, tmp_path / "out", shallow=False)


def opts(web, path, more=""):
    more += "" if "timeout" in more else ",file.timeout=60"         # the machine may have other things to do
    return "driver=raw,file.driver=http,file.url=%s%s%s" % (web.url, path, more)


def test_readahead_saves_requests(tmp_path, web):
    web.data = bytes(range(256)) * 8192
    img("dd", "--image-opts", "bs=64k", "count=16", "-O", "raw", "if=" + opts(web, "/image"), "of=%s" % (tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == web.data[:MIB]
    spans = [r for _, r, _, _ in web.seen if r]
    assert all(b - a + 1 >= 256 << 10 for a, b in spans[1:]) and len(spans) <= 6


def test_who_asks(tmp_path, web):
    web.data = b"x" * 4096
    secret = ["--object", "secret,id=p,data=sesame", "--object", "secret,id=c,data=a=b; c=d"]
    img("map", *secret, "--image-opts", opts(web, "/private", ",file.username=me,file.password-secret=p,file.cookie-secret=c"))
    assert web.seen[-1][2] == "a=b; c=d"
    assert "401" in img("map", "--image-opts", opts(web, "/private", ",file.username=me,file.cookie=z=1"), ok=(1,)).stderr
    assert web.seen[-1][2] == "z=1"


@pytest.mark.parametrize("path,text", [("/none", "404"), ("/whole", "range requests"), ("/lies", "how long"), ("/to-a-file", "cannot read")])
def test_answers_that_do_not_do(tmp_path, web, path, text):
    web.data = b"x" * 4096
    p = img("map", "--image-opts", opts(web, path), ok=(1,))
    assert text in p.stderr and "root:" not in p.stderr + p.stdout


@pytest.mark.parametrize("path", ["/replaced", "/tagged", "/shrunk"])
def test_another_file_comes_in_between(tmp_path, web, path):
    """Its date, its ETag where there is no date, or its length tell. Nothing is made of pieces of both."""
    web.data = b"x" * (MIB * 2)
    assert "another file" in img("convert", "--image-opts", opts(web, path), "-O", "raw", tmp_path / "o", ok=(1,)).stderr
    assert not (tmp_path / "o").exists()


def test_mirrors_of_a_file_have_its_date(tmp_path, web):
    web.data = os.urandom(MIB * 2)
    img("convert", "--image-opts", opts(web, "/mirrors"), "-O", "raw", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == web.data


@pytest.mark.parametrize("path", ["/short", "/long", "/later", "/shifted"])
def test_answers_that_end_wrong(tmp_path, web, path):
    web.data = b"x" * (MIB * 2)
    assert img("convert", "--image-opts", opts(web, path, ",file.readahead=64k"), "-O", "raw", tmp_path / "o", ok=(1,)).stderr
    assert not (tmp_path / "o").exists()


def test_a_server_that_does_not_answer(tmp_path, web):
    web.data = b"x" * 4096
    assert "cannot read" in img("map", "--image-opts", opts(web, "/slow", ",file.timeout=1"), ok=(1,)).stderr
    dead = "http://127.0.0.1:1/x"
    assert "cannot read" in img("map", "-f", "raw", dead, ok=(1,)).stderr
    assert "can only be read" in img("resize", "-f", "raw", web.url + "/image", "1M", ok=(1,)).stderr
    web.data = b"x" * 1000
    assert "whole sectors" in img("map", "-f", "raw", web.url + "/image", ok=(1,)).stderr


def test_encrypted_on_its_way(tmp_path, web):
    pki = authority(tmp_path / "pki")
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(pki / "server-cert.pem", pki / "server-key.pem")
    web.socket = c.wrap_socket(web.socket, server_side=True)
    web.data = b"y" * 8192
    place = "driver=raw,file.driver=https,file.url=%s/image" % web.url.replace("http:", "https:")
    img("convert", "--image-opts", place + ",file.sslverify=off,file.timeout=60", "-O", "raw", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == web.data
    assert "cannot read" in img("map", "--image-opts", place, ok=(1,)).stderr


@pytest.mark.skipif(not QEMU, reason="no qemu-img")
def test_an_overlay_of_qemu(tmp_path, web):
    """QEMU's tool names the web server as a backing file; both may read it."""
    raw = sparse_file(tmp_path / "raw", 2 * MIB)
    web.data = raw.read_bytes()
    run("qemu-img", "create", "-u", "-f", "qcow2", "-b", web.url + "/image", "-F", "raw", tmp_path / "top", "2M")
    img("convert", "-f", "qcow2", "-O", "raw", tmp_path / "top", tmp_path / "out")
    assert filecmp.cmp(raw, tmp_path / "out", shallow=False)
