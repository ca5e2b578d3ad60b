"""Stored runs as files of one's own: tables for other programs, a page for people, a bundle that replays."""
