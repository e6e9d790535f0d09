// Your first ESP32 with Skylift: docs/clients/esp32.md. A page: Wi-Fi, the client, your own self-tests.
#include <Skylift.h>
#include <WiFi.h>

#include "roots.h"  // made by pack.py --roots: IMAGE_ROOT, DIRECTOR_ROOT, LOG_SIZE, LOG_ROOT, SERVER_CA

#define FIRMWARE_VERSION "1.0.0"
#define UPDATE_SERVER "https://updates.example.com"

static skylift::Esp32Port port;

class Tests final : public skylift::Hooks {
  // The network test is built in: the server answers. A sensor that does not answer sends the image back.
  skylift::Verdict sensors() override {
    return analogRead(34) > 0 ? skylift::Verdict::PASS : skylift::Verdict::FAIL;
  }
  bool may_restart() override { return true; }  // false while a pump runs
};

static Tests tests;
static skylift::Client client(port, tests);
static char device_id[32];

void setup() {
  Serial.begin(115200);
  WiFi.begin("SSID", "PASSWORD");
  snprintf(device_id, sizeof device_id, "esp-%012llx", ESP.getEfuseMac());
  if (!port.begin(UPDATE_SERVER, SERVER_CA)) return;
  skylift::Config config;
  config.device_id = device_id;
  config.device_type = "sensor-v2";
  config.product = "sensor";
  config.version = FIRMWARE_VERSION;
  config.claim = "clm_...";  // from `skylift device enroll --type sensor-v2`
  config.image_root = skylift::text(IMAGE_ROOT);
  config.director_root = skylift::text(DIRECTOR_ROOT);
  config.log_size = LOG_SIZE;
  config.log_root = LOG_ROOT;
  client.begin(config);
}

void loop() {
  const uint32_t rest = client.step();  // never longer than a buffer
  // Your program here.
  delay(rest > 10 ? 10 : rest);
}
