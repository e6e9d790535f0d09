// The port for ESP-IDF 5.x and later, and with it for Arduino-ESP32 3.x, which is built on it: esp_http_client,
// esp_partition and esp_ota_ops, NVS, FreeRTOS. Written against their documented APIs; see docs/clients/esp32.md for
// what was tried and where.
//
// The partition table needs ota_0 and ota_1 (no factory partition), and the boot loader CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE.
// esp_http_client and its TLS use the heap; the core does not.
#pragma once
#if defined(ESP_PLATFORM)
#include <esp_http_client.h>
#include <esp_partition.h>
#include <freertos/FreeRTOS.h>
#include <freertos/task.h>
#include <nvs.h>

#include "../skylift/port.hpp"

namespace skylift {

// The decoder's second stack: a task that runs only while `resume` waits for it.
class TaskFiber final : public Fiber {
 public:
  bool start(void (*deed)(void*), void* with) override;
  void resume() override;
  void yield() override;
  void stop() override;

 private:
  static void enter(void* self);
  static constexpr uint32_t STACK = 6144;
  StackType_t stack_[STACK / sizeof(StackType_t)];
  StaticTask_t task_memory_;
  TaskHandle_t task_ = nullptr, caller_ = nullptr;
  void (*deed_)(void*) = nullptr;
  void* with_ = nullptr;
  bool is_over_ = true;
};

class Esp32Port final : public Port {
 public:
  // `server`: https://HOST[:PORT], no path. `ca_pem`: the pinned authority, zero-terminated; plain http needs none.
  bool begin(const char* server, const char* ca_pem);

  bool http_open(const Ask& ask) override;
  int http_head(Head& head) override;
  int http_read(uint8_t* to, uint32_t most) override;
  void http_close() override;
  uint32_t slot_size(uint8_t slot) override;
  bool erase(uint8_t slot, uint32_t at) override;
  bool write(uint8_t slot, uint32_t at, const uint8_t* from, uint32_t n) override;
  bool read(uint8_t slot, uint32_t at, uint8_t* to, uint32_t n) override;
  const uint8_t* map(uint8_t slot, uint32_t n) override;
  Fiber* fiber() override { return &fiber_; }
  uint8_t running() override;
  bool set_boot(uint8_t slot) override;
  bool pending_verify() override;
  bool mark_valid() override;
  void mark_invalid_and_reboot() override;
  void restart() override;
  uint32_t millis() override;
  uint32_t now() override;
  void random(uint8_t* to, uint32_t n) override;
  int get(const char* key, void* to, uint32_t room) override;
  bool put(const char* key, const void* from, uint32_t n) override;
  void log(const char* sentence) override;

 private:
  static esp_err_t heard(esp_http_client_event_t* event);
  void header(const char* name, const char* value);

  const esp_partition_t* slots_[2] = {nullptr, nullptr};
  esp_http_client_handle_t http_ = nullptr;
  esp_partition_mmap_handle_t mapping_ = 0;
  const void* mapped_ = nullptr;
  nvs_handle_t store_ = 0;
  TaskFiber fiber_;
  const char *server_ = "", *ca_pem_ = nullptr, *body_ = nullptr;
  uint32_t body_size_ = 0, body_sent_ = 0;
  char url_[640], bearer_[96], range_[40], etag_[70];
  Head head_ = {};
};

}  // namespace skylift
#endif
