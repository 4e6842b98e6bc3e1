"""Words that all rooms use: times, addresses, versions, devices."""
