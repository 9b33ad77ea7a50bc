"""ADE20K-like data: checking, cleaning, and pointing a config at it."""
