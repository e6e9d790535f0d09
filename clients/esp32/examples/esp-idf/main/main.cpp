// The same for ESP-IDF: a task of its own; skylift_roots.h is what `skylift trust export --esp-idf` wrote.
#include <Skylift.h>
#include <esp_app_desc.h>
#include <esp_event.h>
#include <esp_netif.h>

#include "skylift_roots.h"

extern const char server_ca[] asm("_binary_server_ca_pem_start");

void connect_to_wifi();  // yours, or the one of ESP-IDF's protocol examples

class Tests final : public skylift::Hooks {
  skylift::Verdict sensors() override { return skylift::Verdict::PASS; }
};

static skylift::Esp32Port port;
static Tests tests;
static skylift::Client client(port, tests);

extern "C" void app_main() {
  esp_netif_init();
  esp_event_loop_create_default();
  connect_to_wifi();
  if (!port.begin(CONFIG_SKYLIFT_SERVER, server_ca)) return;
  skylift::Config config;
  config.device_id = CONFIG_SKYLIFT_DEVICE_ID;
  config.device_type = CONFIG_SKYLIFT_DEVICE_TYPE;
  config.product = CONFIG_SKYLIFT_PRODUCT;
  config.version = esp_app_get_description()->version;
  config.security_version = esp_app_get_description()->secure_version;
  config.claim = CONFIG_SKYLIFT_CLAIM;
  config.image_root = skylift::text(skylift_image_root, skylift_image_root_size);
  config.director_root = skylift::text(skylift_director_root, skylift_director_root_size);
  config.log_size = SKYLIFT_LOG_SIZE;
  config.log_root = skylift_log_root;
  client.begin(config);
  for (;;) {
    const uint32_t rest = client.step();
    vTaskDelay(pdMS_TO_TICKS(rest < 10 ? 10 : rest));
  }
}
