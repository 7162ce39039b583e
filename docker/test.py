"""Builds the image and runs it, on a machine without a registry: `make docker-test`, as root.

1. install what is missing: Debian's Docker, compose and mmdebstrap
2. a base image of the name that the Dockerfile asks for, made from Debian's packages, kept in .cache/docker
3. a Docker daemon of our own, to build with
4. the same, in a network namespace of its own, to run with: published ports and compose's networks disturb nobody
5. the checks below, and where this kernel has no kernel TLS, once more in one that has (see docs/testing.md)

Both daemons and all that they made are gone at the end. What pip needs on this machine (authorities, an index) goes into
the base image only. No Docker that runs here already is asked or touched. Needs a system Python from 3.11 on, no more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

TOP = Path(__file__).resolve().parent.parent
CACHE = (TOP / ".cache" / "docker").resolve()
BASE_NAME = "python:3.13-slim-trixie"
BASE_PACKAGES = "ca-certificates,python3.13,python3.13-venv,python3-pip,passwd"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")

# Our layers on top of the base image: 78 MB, of which zstandard, uvloop and cryptography are 55.
MOST_BYTES = 100_000_000
COMPILERS = "cc gcc g++ c++ clang tcc as ld make cmake rustc cargo go"

START_SECONDS = 60.0

# The client that Debian has, whatever else is on PATH: it fits the daemon.
DOCKER = "/usr/bin/docker"


Environment: TypeAlias = Mapping[str, str]
NOTHING_MORE: Environment = {}


class Failed(Exception):
    """A command did not do what it should; the message has its output."""


def run(*command: str, timeout: float = 300, check: bool = True, environment: Environment = NOTHING_MORE) -> str:
    """Standard output. Raises Failed, with standard error, unless the command succeeds or `check` is False."""
    environment = {**os.environ, **environment}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=timeout, env=environment, cwd=TOP
    )
    if check and done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def install_what_is_missing() -> None:
    """Debian 12 has client and builder in docker.io; from Debian 13 on they are packages of their own."""
    commands = {
        "docker.io": "dockerd",
        "docker-cli": DOCKER,
        "docker-buildx": "/usr/libexec/docker/cli-plugins/docker-buildx",
        "docker-compose": "/usr/bin/docker-compose",
        "mmdebstrap": "mmdebstrap",
        "iproute2": "ip",
        "curl": "curl",
    }
    missing = [package for package, command in commands.items() if shutil.which(command) is None]
    if not Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists():
        missing.append("debian-archive-keyring")
    if not AUTHORITIES.exists():
        missing.append("ca-certificates")
    if not succeeds("/usr/bin/python3", "-c", "import yaml"):
        missing.append("python3-yaml")
    if not missing:
        return
    run("apt-get", "update", "--quiet")
    known = [package for package in missing if "Candidate: " in run("apt-cache", "policy", package)]
    if not known:
        return
    print(f"installing {' '.join(known)}", flush=True)
    run(
        *("apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *known),
        timeout=600,
        environment={"DEBIAN_FRONTEND": "noninteractive"},
    )


def base_image() -> Path:
    """The tar file of the base image's root file system."""
    tar = CACHE / "base.tar"
    if tar.exists():
        return tar
    print(f"making {BASE_NAME} from Debian's packages", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    index = os.environ.get("PIP_INDEX_URL", "")
    configuration = f"[global]\\ncert = {AUTHORITIES}\\n" + (f"index-url = {index}\\n" if index else "")
    hook = " && ".join(
        (
            'for name in python3 python; do ln -s /usr/bin/python3.13 "$1/usr/local/bin/$name"; done',
            'rm -f "$1/usr/lib/python3.13/EXTERNALLY-MANAGED"',
            f'cp {AUTHORITIES} "$1{AUTHORITIES}"',
            f"printf '{configuration}' > \"$1/etc/pip.conf\"",
        )
    )
    partial = tar.with_suffix(".partial.tar")
    run(
        *("mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", f"--customize-hook={hook}"),
        *("trixie", str(partial)),
        timeout=900,
    )
    partial.rename(tar)
    return tar


class Daemon:
    """One dockerd, reached only by its own socket."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self._folder = folder
        self._process = process
        self.environment = environment

    def docker(self, *arguments: str, timeout: float = 300, check: bool = True) -> str:
        return run(DOCKER, *arguments, timeout=timeout, check=check, environment=self.environment).strip()

    def compose(self, profile: str, *arguments: str, **environment: str) -> str:
        return run(
            *("docker-compose", "--file", "docker/compose.yaml", "--profile", profile, *arguments),
            environment={**self.environment, **environment},
        )

    def outside(self, *command: str, check: bool = True) -> str:
        """Run a command where the daemon publishes ports: on the host, as far as containers know."""
        return run(*self._from_outside(), *command, check=check)

    @contextlib.contextmanager
    def beside(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """The same, while other things go on."""
        process = subprocess.Popen([*self._from_outside(), *command])
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _from_outside(self) -> tuple[str, ...]:
        return "nsenter", "--target", str(self._process.pid), "--net"


@contextlib.contextmanager
def daemon(folder: Path, *, isolated: bool) -> Iterator[Daemon]:
    """Start one on `folder`, and end it. An isolated one has a network of its own, without a way out."""
    address = f"unix://{folder}/docker.sock"
    command = [
        *("dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--host", address, "--pidfile", str(folder / "pid"), "--iptables=false", "--ip6tables=false"),
    ]
    # What it mounts, its folder to begin with, goes with it.
    if isolated:
        command = ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
    else:
        command = ["unshare", "--mount", *command, "--bridge=none"]
    environment = {"DOCKER_HOST": address, "DOCKER_BUILDKIT": "1", "DOCKER_CONFIG": str(folder / "config")}
    with open(folder / "dockerd.log", "ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: succeeds(DOCKER, "version", environment=environment), "the Docker daemon", process)
        yield Daemon(folder, process, environment)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def succeeds(*command: str, environment: Environment = NOTHING_MORE) -> bool:
    try:
        run(*command, environment=environment)
    except Failed:
        return False
    return True


def wait_for(condition: Callable[[], bool], what: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Raises Failed when it takes too long, or the process that should bring it about has ended."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise Failed(f"{what} did not come up")
        time.sleep(0.2)


class Checks:
    """What was found, as it is found."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def check(self, sentence: str, holds: bool, found: object = "") -> None:
        if holds:
            self.passed += 1
            print(f"ok    {sentence}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL  {sentence}: {found}", flush=True)

    @contextlib.contextmanager
    def scenario(self, docker: Daemon) -> Iterator[None]:
        """Goes on with the next scenario if this one breaks down, and leaves no container."""
        try:
            yield
        except (Failed, subprocess.TimeoutExpired) as failure:
            self.check("the scenario runs to its end", False, failure)
        finally:
            containers = docker.docker("ps", "--all", "--quiet").split()
            if containers:
                docker.docker("rm", "--force", "--volumes", *containers)


HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def started(docker: Daemon, *options: str, command: tuple[str, ...] = ()) -> str:
    """A container that is healthy. Raises Failed, with its log."""
    name = docker.docker("run", "--detach", "--health-interval", "1s", *HARDENED, *options, "ktls-server", *command)

    def healthy() -> bool:
        state = json.loads(docker.docker("inspect", "--format", "{{json .State}}", name))
        if not state["Running"]:
            raise Failed(f"the container ended with {state['ExitCode']}:\n{log_of(docker, name)}")
        return bool(state["Health"]["Status"] == "healthy")

    wait_for(healthy, "the container's health check")
    return name


def log_of(docker: Daemon, name: str) -> str:
    return run("sh", "-c", f'{DOCKER} logs "$0" 2>&1', name, environment=docker.environment)


def check_stop(docker: Daemon, checks: Checks, sentence: str, name: str) -> None:
    """Stop it; the exit status is 137 if Docker had to kill it."""
    docker.docker("stop", name)
    status = docker.docker("inspect", "--format", "{{.State.ExitCode}}", name)
    checks.check(sentence, status == "0", f"exit status {status}\n{log_of(docker, name)}")


def check_image(docker: Daemon, checks: Checks) -> None:
    size = int(docker.docker("image", "inspect", "--format", "{{.Size}}", "ktls-server"))
    base = int(docker.docker("image", "inspect", "--format", "{{.Size}}", BASE_NAME))
    checks.check(f"the image adds {(size - base) // 1_000_000} MB to its base", size - base < MOST_BYTES, size - base)
    found = docker.docker(
        *("run", "--rm", "--network", "none", "--entrypoint", "sh", "ktls-server"),
        *("-c", f"for name in {COMPILERS}; do command -v $name; done; true"),
    )
    checks.check("the image holds no compiler", not found, found)
    help_text = docker.docker("run", "--rm", "--network", "none", "ktls-server", "serve", "--help")
    checks.check("arguments replace the command", "KTLS_SERVER_" in help_text, help_text)


def check_hardened(docker: Daemon, checks: Checks, site: Path) -> None:
    """Read-only, no capability, a development certificate in a tmpfs, a published port."""
    name = started(docker, "--tmpfs", "/tmp", "--publish", "8443:8443", "--volume", f"{site}:/srv:ro")
    checks.check("the container becomes healthy", True)
    certificate = site.parent / "development.pem"
    certificate.write_text(docker.docker("exec", name, "cat", "/tmp/ktls-server/cert.pem") + "\n")
    fetched = site.parent / "fetched"
    curl = ("curl", "--silent", "--show-error", "--fail", "--cacert", str(certificate))
    docker.outside(*curl, "--output", str(fetched), "https://localhost:8443/large")
    same = fetched.read_bytes() == (site / "large").read_bytes()
    checks.check("a file comes over HTTPS from outside, under the container's certificate, unchanged", same)
    status = docker.docker("exec", name, "cat", "/proc/1/status")
    fields = {line.partition(":")[0]: line.partition(":")[2].split() for line in status.splitlines()}
    checks.check("it does not run as root", "0" not in fields["Uid"] + fields["Gid"], fields["Uid"])
    checks.check("it has no capability", int(fields["CapEff"][0], 16) == 0 == int(fields["CapBnd"][0], 16))
    checks.check("a filter for system calls is on", fields["Seccomp"] == ["2"], fields["Seccomp"])
    written = docker.docker(
        "exec", name, "sh", "-c", "for f in /srv/x /opt/x /x; do (echo > $f) 2>/dev/null && echo $f; done; true"
    )
    checks.check("nothing can be written to its root file system", not written, written)
    check_doctor(docker, checks, name)
    # An orphan becomes a child of process 1, which has to take its exit status.
    docker.docker("exec", name, "sh", "-c", "(sleep 0.2 &)")
    time.sleep(1.5)
    zombies = docker.docker("exec", name, "sh", "-c", "cat /proc/[0-9]*/stat | grep -c ' Z ' || true")
    checks.check("orphans do not stay as zombies", zombies == "0", zombies)
    fetched.unlink()
    # Not by the published port: Docker's proxy for it goes with the container, and with it what it still holds.
    address = docker.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name)
    slowly = ("--limit-rate", "8M", "--connect-to", f"localhost:8443:{address}:8443", "https://localhost:8443/large")
    with docker.beside(*curl, "--output", str(fetched), *slowly) as download:
        wait_for(lambda: fetched.exists() and fetched.stat().st_size > 0, "the download", download)
        check_stop(docker, checks, "`docker stop` ends it in time, with exit status 0", name)
        complete = download.wait(60) == 0 and fetched.read_bytes() == (site / "large").read_bytes()
    checks.check("a download in flight is finished before that", complete)


def check_doctor(docker: Daemon, checks: Checks, name: str) -> None:
    """What it says has to fit what the kernel says of itself."""
    report = json.loads(docker.docker("exec", name, "ktls-server", "doctor", "--json", check=False))
    findings = {finding["name"]: finding for finding in report["findings"]}
    checks.check("doctor knows that it is in a container", findings["container"]["value"] == "Docker", findings)
    print(f"      doctor: {report['summary']}", flush=True)
    if kernel_has_tls():
        checks.check("doctor finds the host's kernel TLS", report["kernel_tls"], report)
    else:
        cure = findings["tls module"]["cure"]
        says = ("modprobe tls" in cure and "host" in cure) or "CONFIG_TLS is not set" in cure
        checks.check("doctor says what the host has to do", says, cure)


def kernel_has_tls() -> bool:
    return "tls" in Path("/proc/sys/net/ipv4/tcp_available_ulp").read_text(encoding="ascii").split()


def check_given_certificate(docker: Daemon, checks: Checks, site: Path) -> None:
    """Published as 443 and 80, several workers, a certificate made by `ktls-server certs`; nowhere to write to at all."""
    folder = site.parent / "certs"
    folder.mkdir()
    owner = f"{os.getuid()}:{os.getgid()}"
    docker.docker("run", "--rm", "--user", owner, "--volume", f"{folder}:/certs", "ktls-server", "certs", "/certs")
    for file in folder.iterdir():
        os.chown(file, 10001, 10001)
    name = started(
        *(docker, "--publish", "443:8443", "--publish", "80:8080"),
        *("--volume", f"{site}:/srv:ro", "--volume", f"{folder}:/certs:ro"),
        *("--env", "KTLS_SERVER_CERT=/certs/cert.pem", "--env", "KTLS_SERVER_KEY=/certs/key.pem"),
        *("--env", "KTLS_SERVER_HTTP_PORT=8080", "--env", "KTLS_SERVER_PUBLIC_PORT=443"),
        *("--env", "KTLS_SERVER_METRICS_PORT=9100"),
        command=("serve", "--workers", "2"),
    )
    answer = docker.outside(
        *("curl", "--silent", "--show-error", "--location", "--cacert", str(folder / "cert.pem")),
        *("--output", "/dev/null", "--write-out", "%{url_effective} %{http_code}", "http://localhost/large"),
    )
    checks.check(
        "port 80 leads to port 443, although the server has others", answer == "https://localhost/large 200", answer
    )
    check_stop(docker, checks, "`docker stop` ends several workers, with exit status 0", name)


def check_compose(docker: Daemon, checks: Checks, site: Path) -> None:
    for profile in ("serve", "bench"):
        docker.compose(profile, "config", "--quiet")
    try:
        docker.compose("serve", "up", "--detach", FOLDER=str(site))
        name = docker.compose("serve", "ps", "--quiet").strip()
        certificate = "/var/cache/ktls-server/cert.pem"
        wait_for(
            lambda: succeeds(DOCKER, "exec", name, "test", "-s", certificate, environment=docker.environment),
            certificate,
        )
        trusted = site.parent / "composed.pem"
        trusted.write_text(docker.docker("exec", name, "cat", certificate) + "\n")
        curl = ("curl", "--silent", "--show-error", "--retry", "9", "--retry-all-errors", "--cacert", str(trusted))
        listing = docker.outside(*curl, "https://localhost:8443/")
        checks.check("compose serves a folder and lists it", "large" in listing, listing)
        docker.compose("serve", "restart")
        listing = docker.outside(*curl, "https://localhost:8443/")
        checks.check("its certificate is the same after a restart", "large" in listing, listing)
    finally:
        docker.compose("serve", "down", "--volumes")
    try:
        load = ("auto=https://server-kernel:8443/", "off=https://server-userspace:8443/")
        report = docker.compose("bench", "run", "--rm", "load", "--large", "4", "--small", "400", *load)
        print("".join(f"      {line}\n" for line in report.splitlines()), end="", flush=True)
        checks.check("compose measures both servers", report.count("CPU s/GB") == report.count("CPU us/request") == 2)
    finally:
        docker.compose("bench", "down", "--volumes")


def check_kernel_tls(docker: Daemon, checks: Checks, folder: Path, site: Path) -> None:
    """The same restrictions on a kernel that has kernel TLS, where this one has not: User Mode Linux, and runc in it.

    The container's configuration is the one that Docker wrote, seccomp filter and all; only what belongs to this
    machine's network and control groups is taken out of it.
    """
    name = started(docker, "--tmpfs", "/tmp", "--network", "host")
    written = next(folder.glob(f"exec/**/{name}/config.json"), None)
    if written is None:
        raise Failed("containerd's configuration of the container was not found")
    configuration = json.loads(written.read_text(encoding="utf-8"))
    bundle = folder / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    run("sh", "-c", f'{DOCKER} export "$0" | tar -x -C "$1/rootfs"', name, str(bundle), environment=docker.environment)
    linux = configuration["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]
    linux["resources"] = {}
    linux.pop("cgroupsPath")
    configuration.pop("hooks", None)
    configuration["root"] = {"path": "rootfs", "readonly": True}
    mounts = [each for each in configuration["mounts"] if each["type"] not in ("cgroup", "bind")]
    mounts.append({"destination": "/srv", "type": "bind", "source": str(site), "options": ["rbind", "ro"]})
    configuration["mounts"] = mounts
    configuration["process"]["args"] = ["sh", "-c", _IN_KERNEL_TLS]
    (bundle / "config.json").write_text(json.dumps(configuration), encoding="utf-8")
    script = bundle / "script.sh"
    script.write_text(f"{_MOUNT_CONTROL_GROUPS}cd {bundle} && exec runc --root /run/runc run inside < /dev/null\n")
    in_kernel = (sys.executable, "-m", "tests.kernels", "uml", "--timeout", "120", "--", "sh", str(script))
    output = run("sh", "-c", 'exec "$@" 2>&1', "sh", *in_kernel, check=False)
    capabilities = set(re.findall(r"^Cap\w+:\s+(\d+)$", output, re.MULTILINE))
    checks.check("on a kernel with kernel TLS: still no capability", capabilities == {"0" * 16}, output)
    checks.check("on a kernel with kernel TLS: a filter for system calls is on", "Seccomp:\t2" in output, output)
    checks.check("on a kernel with kernel TLS: doctor finds it", "doctor=0" in output, output)
    counted = re.search(r"^TlsTxSw\s+(\d+)\n(?:.*\n)*?sent=kernel\nTlsTxSw\s+(\d+)$", output, re.MULTILINE)
    grown = counted is not None and int(counted[2]) > int(counted[1])
    checks.check("on a kernel with kernel TLS: the kernel encrypts", grown, output)


_IN_KERNEL_TLS = """
grep -E '^(Cap|Seccomp:)' /proc/self/status
ktls-server doctor > /dev/null; echo doctor=$?
ktls-server serve --ktls require --access-log json > /tmp/log &
until python3 /opt/ktls-server/healthcheck.py 2> /dev/null; do sleep 0.2; done
grep TlsTxSw /proc/net/tls_stat
python3 /opt/ktls-server/healthcheck.py
kill $!
wait $!
grep -o '"tx": "kernel"' /tmp/log > /dev/null && echo sent=kernel
grep TlsTxSw /proc/net/tls_stat
"""

_MOUNT_CONTROL_GROUPS = """
mkdir -p /sys/fs/cgroup && mount -t tmpfs none /sys/fs/cgroup
for name in cpu cpuacct memory devices freezer pids; do
    mkdir /sys/fs/cgroup/$name && mount -t cgroup -o $name none /sys/fs/cgroup/$name
done
"""


def check_kubernetes(checks: Checks) -> None:
    """What can be told without a cluster: it parses, and its parts fit each other and the image."""
    program = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))"
    text = (TOP / "docker" / "kubernetes.yaml").read_text(encoding="utf-8")
    parsed = subprocess.run(["/usr/bin/python3", "-c", program], input=text, capture_output=True, text=True, check=True)
    objects = {document["kind"]: document for document in json.loads(parsed.stdout)}
    deployment, service = objects["Deployment"]["spec"], objects["Service"]["spec"]
    pod = deployment["template"]["spec"]
    (server,), (loader,) = pod["containers"], pod["initContainers"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = (deployment["selector"]["matchLabels"], service["selector"])
    checks.check("Kubernetes: the selectors find the pod", all(labels.items() >= each.items() for each in selectors))
    ports = {port["name"] for port in server["ports"]}
    wanted = {port["targetPort"] for port in service["ports"]}
    wanted |= {server[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")}
    checks.check("Kubernetes: service and probes name ports that there are", wanted <= ports, wanted - ports)
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["name"] for container in (server, loader) for mount in container["volumeMounts"]}
    checks.check("Kubernetes: what is mounted is declared", mounts == volumes, mounts ^ volumes)
    grace = next(int(each["value"]) for each in server["env"] if each["name"] == "KTLS_SERVER_GRACE")
    checks.check("Kubernetes: the pod outlives the grace period", pod["terminationGracePeriodSeconds"] > grace)
    checks.check("Kubernetes: the kubelet sets no variables for the Service", pod["enableServiceLinks"] is False)
    secure = server["securityContext"]
    checks.check(
        "Kubernetes: the server has no rights, the module loader just two",
        secure["capabilities"] == {"drop": ["ALL"]}
        and secure["readOnlyRootFilesystem"]
        and not secure["allowPrivilegeEscalation"]
        and loader["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_MODULE", "SYS_CHROOT"]},
    )


def make_site(folder: Path) -> Path:
    site = folder / "site"
    site.mkdir()
    (site / "large").write_bytes(os.urandom(1 << 20) * 24)
    return site


def main() -> int:
    if os.geteuid():
        print("the Docker daemon of this test needs root: sudo make docker-test", file=sys.stderr)
        return 1
    checks = Checks()
    try:
        install_what_is_missing()
        tar = base_image()
        with tempfile.TemporaryDirectory(prefix="run-", dir=CACHE, ignore_cleanup_errors=True) as name:
            build_and_run(Path(name), tar, checks)
    except (Failed, subprocess.TimeoutExpired) as failure:
        checks.check("the test runs to its end", False, failure)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


def build_and_run(folder: Path, tar: Path, checks: Checks) -> None:
    folder.chmod(0o755)  # containers run as another user
    site = make_site(folder)
    check_kubernetes(checks)
    with daemon(folder, isolated=False) as docker:
        docker.docker("import", str(tar), BASE_NAME)
        for options in (("--tag", "ktls-server"), ("--target", "load", "--tag", "ktls-server-load")):
            docker.docker("build", "--quiet", "--network", "host", "--file", "docker/Dockerfile", *options, ".")
        checks.check("the images build", True)
    with daemon(folder, isolated=True) as docker:
        with checks.scenario(docker):
            check_image(docker, checks)
        with checks.scenario(docker):
            check_hardened(docker, checks, site)
        with checks.scenario(docker):
            check_given_certificate(docker, checks, site)
        with checks.scenario(docker):
            check_compose(docker, checks, site)
        if not kernel_has_tls():
            with checks.scenario(docker):
                check_kernel_tls(docker, checks, folder, site)


if __name__ == "__main__":
    sys.exit(main())
