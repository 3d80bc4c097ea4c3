"""What the service counts, in the text form that Prometheus reads."""

from __future__ import annotations

import threading
from collections import Counter

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Counts:
    """Requests by route and status, and how long they took."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._within: Counter[tuple[str, float]] = Counter()
        self._seconds: dict[str, float] = {}

    def add(self, route: str, status: int, seconds: float) -> None:
        with self._lock:
            self._requests[route, status] += 1
            self._seconds[route] = self._seconds.get(route, 0.0) + seconds
            for bound in BUCKETS:
                self._within[route, bound] += seconds <= bound

    def text(self, rows: int) -> str:
        with self._lock:
            requests, within, seconds = dict(self._requests), dict(self._within), dict(self._seconds)
        lines = ["# HELP onespace_requests_total Requests by route and status.", "# TYPE onespace_requests_total counter"]
        lines += [f'onespace_requests_total{{route="{route}",status="{status}"}} {n}' for (route, status), n in sorted(requests.items())]
        lines += ["# HELP onespace_request_seconds How long requests took.", "# TYPE onespace_request_seconds histogram"]
        for route in sorted(seconds):
            total = sum(n for (name, _), n in requests.items() if name == route)
            lines += [f'onespace_request_seconds_bucket{{route="{route}",le="{bound}"}} {within[route, bound]}' for bound in BUCKETS]
            lines.append(f'onespace_request_seconds_bucket{{route="{route}",le="+Inf"}} {total}')
            lines += [f'onespace_request_seconds_sum{{route="{route}"}} {seconds[route]:.6f}']
            lines.append(f'onespace_request_seconds_count{{route="{route}"}} {total}')
        lines += [
            "# HELP onespace_table_rows Rows of the visible version.",
            "# TYPE onespace_table_rows gauge",
            f"onespace_table_rows {rows}",
        ]
        return "\n".join(lines) + "\n"
