"""Outcomes made by hand, with figures that are easy to check by eye."""

from ktls_server.bench.measure import LoadPlan, Round, Series, Subject
from ktls_server.bench.run import KERNEL, PLAIN_READ, PLAIN_SENDFILE, USERSPACE, Measurement, Outcome

MEGABYTE = 1_000_000
REASON = "The kernel path was not measured: the kernel has no tls module (ENOENT)."


def one_round(cpu_seconds: float | None) -> Round:
    """A hundred requests of 10 MB in a second, with latencies of 1 to 100 ms."""
    return Round(100, 1000 * MEGABYTE, 1.0, tuple(number / 1000 for number in range(1, 101)), cpu_seconds)


def series(name: str, *cpu_seconds: float | None, kernel: bool | None = False) -> Series:
    """One round for each of the CPU times; 8 connections each."""
    connections = 8 * len(cpu_seconds)
    return Series(
        Subject(name, "https://127.0.0.1:1/", 1 if cpu_seconds[0] is not None else 0, kernel),
        rounds=[one_round(value) for value in cpu_seconds],
        connections=connections,
        kernel_connections=connections if kernel else 0,
        peak_bytes=45 << 20 if cpu_seconds[0] is not None else None,
        agreed="TLSv1.3 TLS_AES_128_GCM_SHA256",
    )


def userspace() -> Series:
    return series(USERSPACE, 1.5, 1.6, 1.8)


def kernel() -> Series:
    return series(KERNEL, 0.7, 0.8, 0.9, kernel=True)


def outcome(*measured: Series, notes: tuple[str, ...] = ()) -> Outcome:
    return Outcome(LoadPlan(rounds=3), "uvloop", (Measurement(10 * MEGABYTE, measured),), notes)


def both_paths() -> Outcome:
    return outcome(userspace(), kernel())


def userspace_only() -> Outcome:
    return outcome(userspace(), notes=(REASON,))


def ladder() -> Outcome:
    return outcome(series(PLAIN_READ, 0.4, 0.4, 0.4), series(PLAIN_SENDFILE, 0.2, 0.2, 0.2), userspace(), kernel())
