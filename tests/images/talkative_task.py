"""Tasks for a child process that print what they are told to."""


def talk(argument, data, talk):
    if argument.get("asks"):
        talk.read(0, 8)
    if argument.get("fails"):
        raise LookupError
    talk.send({"said": True}, argument["says"].encode())


def draw_twice(argument, data, talk):
    for _ in range(2):
        talk.send({"rows": 1, "columns": 1, "width": 1, "height": 1, "damaged": False}, bytes(3))
