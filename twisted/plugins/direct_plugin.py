"""Makes ``twistd --reactor direct`` known to twistd."""

from twisted.application.reactors import Reactor

direct = Reactor("direct", "reactor.direct", "epoll(7) based reactor, without a log context for each event.")
