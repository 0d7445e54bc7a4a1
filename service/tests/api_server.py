"""The local HTTP server that stands in the place of the API, and notes when each request arrived.

`python3 api_server.py PORT` runs it by itself, `python3 api_server.py PORT CERTIFICATE KEY` (two files)
with TLS. What it does is in the path:

    /ok               200 at once                /delay/0.1     200 after 0.1 s
    /status/503       that status                /hang          never answers
    /drip             a byte each 0.1 s, for ever (/drip-headers the same within its headers)
    /endless          a body without end         /cut           says 100 bytes, sends 10, closes
    /redirect/N       to /status/N               /redirect-to/URL, /redirect-to-ftp, /redirect-endless
    /one-of/A,B       as for one of these, at random (503 stands for /status/503)
    /drop             reads the request, closes, and answers nothing
    /token/60         an OAuth 2 access token, good for that many seconds
    /cookie           sets one                   /close         answers, and closes the connection
    /seen             JSON: [{"method": ..., "path": ..., "at": seconds since the epoch, "connection": n, "headers": {...},
                      "body": ...}, ...] of all the requests above; with "answer", the path it was treated as,
                      and "end", once it was answered
    /count            how many there were: a burst is not to wait until all of /seen is written
    /switch/PATH      from now on every other request is treated as one for /PATH
    /forget           empties what /seen shows
"""
import asyncio
import json
import random
import ssl
import sys
import time


class ApiServer:
    def __init__(self):
        self.seen = []
        self.connections = 0
        self.switched = None

    async def serve(self, port=0, tls=None):
        """Starts to listen on 127.0.0.1, with TLS when given an SSLContext; returns the asyncio server."""
        return await asyncio.start_server(self._client, "127.0.0.1", port, backlog=4096, ssl=tls)

    async def _client(self, reader, writer):
        self.connections += 1
        number = self.connections
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                at = time.time()
                first, *lines = head.rstrip().split("\r\n")
                method, path, _ = first.split()
                headers = dict(line.split(": ", 1) for line in lines)
                body = await reader.readexactly(int(headers.get("Content-Length", 0)))
                if path == "/seen":
                    self._answer(writer, 200, json.dumps(self.seen).encode())
                elif path == "/count":
                    self._answer(writer, 200, str(len(self.seen)).encode())
                elif path == "/forget":
                    self.seen.clear()
                    self._answer(writer, 200)
                elif path.startswith("/switch/"):
                    self.switched = path[len("/switch"):]
                    self._answer(writer, 200)
                else:
                    request = {"method": method, "path": path, "at": at, "connection": number, "headers": headers,
                               "body": body.decode("latin-1")}
                    self.seen.append(request)
                    answer = (self.switched or path).split("?")[0]
                    if answer.startswith("/one-of/"):
                        answer = "/" + random.choice(answer[len("/one-of/"):].split(","))
                        answer = f"/status{answer}" if answer[1:].isdigit() else answer.replace("-", "/")
                    request["answer"] = answer
                    try:
                        if not await self._play(writer, answer):
                            break
                    finally:
                        request["end"] = time.time()
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, writer, status, body=b"ok", extra=""):
        writer.write(f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body)

    async def _play(self, writer, path):
        """Answers as the path says; returns whether the connection stays open."""
        name, _, argument = path[1:].partition("/")
        if name == "delay":
            await asyncio.sleep(float(argument))
        if name == "status":
            self._answer(writer, int(argument))
        elif name == "redirect":
            self._answer(writer, 302, extra=f"Location: /status/{argument}\r\n")
        elif name == "redirect-to":
            self._answer(writer, 302, extra=f"Location: {argument}\r\n")
        elif name == "redirect-to-ftp":
            self._answer(writer, 302, extra="Location: ftp://127.0.0.1/\r\n")
        elif name == "token":
            self._answer(writer, 200, json.dumps({
                "access_token": str(time.time()), "token_type": "Bearer", "expires_in": float(argument)}).encode())
        elif name == "cookie":
            self._answer(writer, 200, extra="Set-Cookie: a=b; Path=/\r\n")
        elif name == "close":
            self._answer(writer, 200, extra="Connection: close\r\n")
            return False
        elif name == "cut":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
            return False
        elif name == "drop":
            return False
        elif name == "hang":
            await asyncio.sleep(3600)
        elif name in ("drip", "drip-headers"):
            writer.write(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 100000\r\n\r\n" if name == "drip" else b"X: "))
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.1)
        elif name in ("endless", "redirect-endless"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if name == "endless"
                         else b"HTTP/1.1 302 Found\r\nLocation: /ok\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        else:
            self._answer(writer, 200)
        return True


async def main(port, *certificate_and_key):
    tls = None
    if certificate_and_key:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate_and_key)
    server = await ApiServer().serve(port, tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0, *sys.argv[2:]))
