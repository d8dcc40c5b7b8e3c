"""The web page at `/`: its files, and how third-party ones came here."""
