# Your first ESP32 with MicroPython (docs/clients/micropython.md): Wi-Fi, the client, your own self-tests.
import time
from binascii import hexlify

import machine
import network
import skylift
import skylift_roots  # made by `skylift trust export --micropython`

FIRMWARE_VERSION = "1.0.0"
UPDATE_SERVER = "https://updates.example.com"

wifi = network.WLAN(network.STA_IF)
wifi.active(True)
wifi.connect("SSID", "PASSWORD")


class Tests(skylift.Hooks):
    # The network test is built in: the server answers. A sensor that does not answer sends the image back.
    def sensors(self):
        return True

    def may_restart(self):
        return True  # False while a pump runs


with open("/server_ca.pem", "rb") as file:
    server_ca = file.read()
config = skylift.Config(
    UPDATE_SERVER,
    device_id="esp-" + hexlify(machine.unique_id()).decode(),
    device_type="sensor-v2",
    product="sensor",
    version=FIRMWARE_VERSION,
    image_root=skylift_roots.IMAGE_ROOT,
    director_root=skylift_roots.DIRECTOR_ROOT,
    log_size=skylift_roots.LOG_SIZE,
    log_root=skylift_roots.LOG_ROOT,
    ca=server_ca,
    claim="clm_...",  # from `skylift device enroll --type sensor-v2`
)
client = skylift.Client(config, Tests())
client.begin()
while True:
    rest = client.step()  # never longer than a buffer, but for a signature
    # Your program here.
    time.sleep_ms(min(rest, 10))
