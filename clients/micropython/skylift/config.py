"""What the firmware is built with, and what it knows better."""

from skylift.http import server_of

MORE = {
    "claim": "",  # enrolls this device once, with a token of its own making
    "log_size": 0,  # the log's checkpoint, as the export wrote it: LOG_SIZE and LOG_ROOT
    "log_root": "",
    "token": "",  # instead of a claim: a token from the factory
    "ca": None,  # PEM or DER: who signed the server's certificate. Needed for https
    "security_version": 0,  # of this firmware: the floor is never below
    "built": 0,  # when it was built, seconds since 1970: no clock is believed to be before
    "trial_seconds": 120,  # for the self-tests
    "download_seconds": 3600,
    "least_bytes_a_second": 64,
    "progress_percent": 10,  # how often progress is reported; 100: at begin and end
    "save_every": 65536,  # bytes: how much a power cut may cost, a multiple of 4096
    "poll_seconds": 0,  # at most between two checks; 0: as the server says
}


class Config:
    """Where this device belongs. `image_root` and `director_root` are what `skylift trust export
    --micropython` wrote. Raises ValueError, which names the setting."""

    def __init__(self, server, device_id, device_type, product, version, image_root, director_root, **more):
        self.device_id, self.device_type = device_id, device_type
        self.product, self.version = product, version
        self.image_root, self.director_root = image_root, director_root
        for name in more:
            if name not in MORE:
                raise ValueError("config: there is no setting " + name)
        for name, otherwise in MORE.items():
            setattr(self, name, more.get(name, otherwise))
        for name in ("device_id", "device_type", "product", "version", "image_root", "director_root"):
            if not getattr(self, name):
                raise ValueError("config: " + name + " is empty")
        if self.save_every < 4096 or self.save_every % 4096:
            raise ValueError("config: save_every must be a multiple of 4096")
        self.server = server
        if server_of(server)[2] and not self.ca:
            raise ValueError("config: ca is empty, and nobody else's word counts for a server of https")


class Hooks:
    """Self-tests run on the trial boot, one after the other, until each has passed: True passes, False fails,
    None asks to be called again."""

    def network(self, client):
        """The server has answered, whatever it said."""
        return client.reached or None

    def sensors(self):
        return True

    def mqtt(self):
        return True

    def battery_is_good(self):
        """False: the update waits."""
        return True

    def may_restart(self):
        """False: the restart waits."""
        return True

    def progress(self, percent):
        pass

    def healthy(self):
        """How the device is between updates, where the server asks: True, False, or None for no word."""
        return True

    def metrics(self):
        """At most eight numbers by name, which the server compares with those of devices not updated."""
        return {}

    def trial_message(self):
        """Why a self-test failed, in the report."""
        return ""
