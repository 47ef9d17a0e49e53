"""The synchronous server of the tutorial: one thread, which sleeps inside each request.

    sync_server.py [SECONDS]

It listens on a free loopback port, prints `listening on http://127.0.0.1:PORT`, and ends when its standard input
closes, so that it cannot outlive the test that started it.
"""

import http.server
import os
import sys
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    seconds = 2.0

    def do_GET(self):
        time.sleep(self.seconds)
        body = b'{"message": "done"}\n'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def stop_with_standard_input():
    sys.stdin.read()
    # The main thread may be asleep inside a request; a test that has ended does not wait for it.
    os._exit(0)


def main():
    if len(sys.argv) > 1:
        Handler.seconds = float(sys.argv[1])
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=stop_with_standard_input, daemon=True).start()
    print("listening on http://127.0.0.1:%d" % server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
