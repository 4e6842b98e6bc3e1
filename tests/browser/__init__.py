"""What operators see, in a real Chromium: the story of a release, and each page by itself."""
