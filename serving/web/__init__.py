"""The service as HTTP sees it: requests in, answers out. The only place that knows HTTP."""
