"""A mail server and a webhook, for tests of alerts. aiosmtpd does the SMTP.

alerts.py mail PORT LOG CERTIFICATE KEY: STARTTLS and AUTH are wanted; the account is bootlace, its password open-sesame.
alerts.py smtps PORT LOG CERTIFICATE KEY: the same by TLS from the first byte.
alerts.py web PORT LOG: takes JSON.
alerts.py hang PORT LOG: takes connections and says nothing.
alerts.py cut PORT LOG: greets, and ends.
Each thing that arrives is a line of JSON in LOG.
"""

import asyncio
import contextlib
import http.server
import json
import socket
import ssl
import sys

what, port, log = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def note(**fields):
    with open(log, "a") as file:
        file.write(json.dumps(fields) + "\n")


def mail(is_tls):
    import email
    import email.policy
    from aiosmtpd.smtp import SMTP, AuthResult

    class Handler:
        async def handle_RCPT(self, server, session, envelope, address, options):
            if address.startswith("nobody"):
                return "550 5.1.1 no such mailbox"
            envelope.rcpt_tos.append(address)
            return "250 OK"

        async def handle_DATA(self, server, session, envelope):
            message = email.message_from_bytes(envelope.content, policy=email.policy.default)
            note(
                to=envelope.rcpt_tos,
                subject=message["Subject"],
                headers=message.keys(),
                body=message.get_content(),
            )
            return "250 OK"

    def login(server, session, envelope, mechanism, data):
        is_right = (data.login, data.password) == (b"bootlace", b"open-sesame")
        return AuthResult(success=is_right, handled=is_right)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[4], sys.argv[5])

    def make():
        return SMTP(
            Handler(),
            hostname="mail.test",
            tls_context=None if is_tls else context,
            require_starttls=not is_tls,
            auth_required=True,
            authenticator=login,
            auth_require_tls=not is_tls,
        )

    async def serve():
        tls = context if is_tls else None
        server = await asyncio.get_running_loop().create_server(make, "0.0.0.0", port, ssl=tls)
        print("ready", flush=True)
        await server.serve_forever()

    asyncio.run(serve())


def web():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            is_known = self.headers["Authorization"] == "Bearer abracadabra"
            if is_known:
                note(**body)
            self.send_response(204 if is_known else 401)
            self.end_headers()

    server = http.server.HTTPServer(("0.0.0.0", port), Handler)
    print("ready", flush=True)
    server.serve_forever()


def plain(greeting):
    listener = socket.create_server(("0.0.0.0", port))
    print("ready", flush=True)
    kept = []
    while True:
        stream, _ = listener.accept()
        if greeting:
            with contextlib.suppress(OSError):
                stream.sendall(greeting)
            stream.close()
        else:
            note(connected=True)
            kept.append(stream)


if what in ("mail", "smtps"):
    mail(what == "smtps")
elif what == "web":
    web()
else:
    greetings = {"cut": b"220 mail.test ESMTP\r\n", "endless": b"220 " + b"x" * (64 << 20)}
    plain(greetings.get(what, b""))
