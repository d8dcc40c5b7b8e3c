"""The shapes of answers. A finished job says what was really used, not what was asked for."""
