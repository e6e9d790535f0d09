"""A desk's `machine`: a reset ends this boot."""


class Restart(BaseException):
    pass


def reset():
    raise Restart()


def unique_id():
    return b"\x01\x02\x03\x04\x05\x06"
