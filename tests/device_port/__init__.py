"""Tests of what devices ask and get, over real sockets."""
