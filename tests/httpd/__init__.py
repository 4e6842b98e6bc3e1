"""Tests of the HTTP server, most of them over real sockets."""
