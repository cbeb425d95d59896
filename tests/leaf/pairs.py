"""Where the cases register themselves."""

PAIRS = []  # (name, function): held between a hub and a leaf of every combination
ALONE = []  # (name, function): held on one server at a time


def pair(function):
    PAIRS.append((function.__name__, function))
    return function


def alone(function):
    ALONE.append((function.__name__, function))
    return function
