"""An authority and certificates that it signs, made by the openssl program in a directory that goes away with the object."""

import hashlib
import os
import shutil
import subprocess
import tempfile

CONFIG = "[req]\ndistinguished_name = dn\n[dn]\n"
NAMES = "DNS:localhost,IP:127.0.0.1"


class Certificates:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="certificates-")
        self.config = self.path("openssl.cnf")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(CONFIG)
        self._sign("ca", "-addext", "basicConstraints=critical,CA:TRUE")
        self.authority = self.path("ca.pem")

    def path(self, name):
        return os.path.join(self.directory, name)

    def _sign(self, name, *options):
        self._run("req", "-x509", "-config", self.config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                  "-days", "2", "-subj", f"/O=Test/CN={name}", "-keyout", self.path(f"{name}-key.pem"), "-out",
                  self.path(f"{name}.pem"), *options)

    @staticmethod
    def _run(*arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, timeout=60, check=False)
        if done.returncode != 0:
            raise AssertionError(f"openssl {' '.join(arguments)}: {done.stderr.decode()}")
        return done.stdout

    def pair(self, name, names=NAMES):
        """cert_file and key_file of a configuration, made when first asked for."""
        if not os.path.exists(self.path(f"{name}.pem")):
            self._sign(name, "-CA", self.authority, "-CAkey", self.path("ca-key.pem"), "-addext", "basicConstraints=CA:FALSE",
                       "-addext", f"subjectAltName={names}")
        return f'cert_file: "{self.path(name)}.pem", key_file: "{self.path(name)}-key.pem"'

    def renew(self, name):
        """Another certificate in the same files."""
        os.remove(self.path(f"{name}.pem"))
        self.pair(name)

    def block(self, name, more="", names=NAMES):
        """A tls block: that certificate, and trust in this authority."""
        return f'tls {{ {self.pair(name, names)}, ca_file: "{self.authority}"{", " + more if more else ""} }}'

    def trust(self, more=""):
        """A tls block without a certificate."""
        return f'tls {{ ca_file: "{self.authority}"{", " + more if more else ""} }}'

    def pin(self, name):
        self.pair(name)
        key = self._run("x509", "-in", self.path(f"{name}.pem"), "-pubkey", "-noout")
        with open(self.path(f"{name}-public.pem"), "wb") as file:
            file.write(key)
        der = self._run("pkey", "-pubin", "-in", self.path(f"{name}-public.pem"), "-outform", "DER")
        return hashlib.sha256(der).hexdigest()

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()
