"""The only place that knows Pyro4: serializers, sockets, daemons, the name server (imports nothing of ours)."""
