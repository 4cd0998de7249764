"""gunicorn's settings; started by `python3 -m swift_service`."""

# Imported by the master so that workers, its forks, need not do it again.
import flask  # noqa: F401
import prometheus_client  # noqa: F401
from swift_service import server
from swift_service.log import ServerLog
from swift_service.settings import most_delayed

_settings = server.load_settings()

wsgi_app = "swift_service.wsgi:app"
proc_name = _settings.name
bind = _settings.bind
workers = _settings.workers
worker_class = "gthread"
# Threads start when they are needed. Those beyond THREADS only wait out injected delays.
threads = _settings.threads + most_delayed(_settings)
graceful_timeout = _settings.shutdown_timeout
# Longer than the proxy keeps an idle connection (60 s): the side that sends must be the one that closes.
keepalive = 75
worker_tmp_dir = server.memory_dir()
control_socket_disable = True

# Nothing a client sends may speak for the proxy.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# nginx writes the access log.
accesslog = None
logger_class = ServerLog

on_starting = server.on_starting
pre_fork = server.pre_fork
post_fork = server.post_fork
child_exit = server.child_exit
on_exit = server.on_exit
