#if defined(ESP_PLATFORM)
#include "esp32_port.hpp"

#include <esp_log.h>
#include <esp_ota_ops.h>
#include <esp_random.h>
#include <esp_system.h>
#include <esp_timer.h>
#include <nvs_flash.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#if defined(ARDUINO)
// Arduino's start-up marks every image valid before `setup` unless it is told that somebody else will judge.
extern "C" bool verifyRollbackLater() { return true; }
#endif

namespace skylift {
namespace {

constexpr int QUIET_MS = 250;              // how long one call may wait for the line
constexpr uint32_t CLOCK_IS_SET = 1700000000;  // seconds since 1970; a chip begins at 0
const char TAG[] = "skylift";

}  // namespace

// --- the second stack ----------------------------------------------------------------------------------------------

void TaskFiber::enter(void* self) {
  TaskFiber& me = *static_cast<TaskFiber*>(self);
  ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
  me.deed_(me.with_);
  me.is_over_ = true;
  xTaskNotifyGive(me.caller_);
  vTaskSuspend(nullptr);  // until `stop` deletes it
}

bool TaskFiber::start(void (*deed)(void*), void* with) {
  stop();
  deed_ = deed;
  with_ = with;
  is_over_ = false;
  task_ = xTaskCreateStatic(enter, "skylift delta", STACK / sizeof(StackType_t), this, uxTaskPriorityGet(nullptr), stack_,
                            &task_memory_);
  return task_ != nullptr;
}

void TaskFiber::resume() {
  if (is_over_) return;
  caller_ = xTaskGetCurrentTaskHandle();
  xTaskNotifyGive(task_);
  ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
}

void TaskFiber::yield() {
  xTaskNotifyGive(caller_);
  ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
}

void TaskFiber::stop() {
  if (task_) vTaskDelete(task_);
  task_ = nullptr;
  is_over_ = true;
}

// --- begin ------------------------------------------------------------------------------------------------------------

bool Esp32Port::begin(const char* server, const char* ca_pem) {
  server_ = server;
  ca_pem_ = ca_pem;
  slots_[0] = esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_APP_OTA_0, nullptr);
  slots_[1] = esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_APP_OTA_1, nullptr);
  const esp_partition_t* own = esp_ota_get_running_partition();
  if (!slots_[0] || !slots_[1] || (own != slots_[0] && own != slots_[1])) {
    log("the partition table needs ota_0 and ota_1, and one of them must run");
    return false;
  }
  if (nvs_flash_init() != ESP_OK || nvs_open(TAG, NVS_READWRITE, &store_) != ESP_OK) {
    log("NVS cannot be opened");
    return false;
  }
  return true;
}

// --- HTTP ---------------------------------------------------------------------------------------------------------------

esp_err_t Esp32Port::heard(esp_http_client_event_t* event) {
  if (event->event_id == HTTP_EVENT_ON_HEADER)
    static_cast<Esp32Port*>(event->user_data)->header(event->header_key, event->header_value);
  return ESP_OK;
}

void Esp32Port::header(const char* name, const char* value) {
  uint32_t number;
  if (!strcasecmp(name, "Retry-After") && from_decimal(text(value), 1000000, &number)) {
    head_.retry_after = number;
  } else if (!strcasecmp(name, "Content-Range")) {
    unsigned from = 0, total = 0;
    if (sscanf(value, "bytes %u-%*u/%u", &from, &total) == 2) head_.from = from, head_.total = total;
  }
}

bool Esp32Port::http_open(const Ask& ask) {
  http_close();
  clear(head_);
  Line url(url_, sizeof url_);
  url.put(server_).put(ask.path);
  if (!url.whole()) return false;
  esp_http_client_config_t config = {};
  config.url = url_;
  config.cert_pem = ca_pem_;
  config.timeout_ms = QUIET_MS;
  config.disable_auto_redirect = true;
  config.event_handler = heard;
  config.user_data = this;
  http_ = esp_http_client_init(&config);
  if (!http_) return false;
  esp_http_client_set_method(http_, ask.method[0] == 'P' ? HTTP_METHOD_POST : HTTP_METHOD_GET);
  if (ask.token[0]) {
    Line(bearer_, sizeof bearer_).put("Bearer ").put(ask.token);
    esp_http_client_set_header(http_, "Authorization", bearer_);
  }
  if (ask.from) {
    Line(range_, sizeof range_).put("bytes=").number(ask.from).put('-');
    esp_http_client_set_header(http_, "Range", range_);
    if (ask.etag) {
      Line(etag_, sizeof etag_).put('"').put(ask.etag).put('"');
      esp_http_client_set_header(http_, "If-Range", etag_);
    }
  }
  if (ask.body) esp_http_client_set_header(http_, "Content-Type", "application/json");
  body_ = ask.body;
  body_size_ = ask.body ? static_cast<uint32_t>(length(ask.body)) : 0;
  body_sent_ = 0;
  return esp_http_client_open(http_, static_cast<int>(body_size_)) == ESP_OK;
}

int Esp32Port::http_head(Head& head) {
  if (!http_) return BROKEN;
  while (body_sent_ < body_size_) {
    const int n = esp_http_client_write(http_, body_ + body_sent_, static_cast<int>(body_size_ - body_sent_));
    if (n <= 0) return BROKEN;
    body_sent_ += static_cast<uint32_t>(n);
  }
  const int64_t size = esp_http_client_fetch_headers(http_);
  if (size == -ESP_ERR_HTTP_EAGAIN) return WAIT;
  if (size < 0) return BROKEN;
  head = head_;
  head.status = esp_http_client_get_status_code(http_);
  head.has_length = !esp_http_client_is_chunked_response(http_);
  head.length = size < UINT32_MAX ? static_cast<uint32_t>(size) : UINT32_MAX;
  return 1;
}

int Esp32Port::http_read(uint8_t* to, uint32_t most) {
  if (!http_) return BROKEN;
  const int n = esp_http_client_read(http_, reinterpret_cast<char*>(to), static_cast<int>(most));
  if (n > 0) return n;
  if (n == -ESP_ERR_HTTP_EAGAIN) return WAIT;
  return n == 0 && esp_http_client_is_complete_data_received(http_) ? static_cast<int>(END) : static_cast<int>(BROKEN);
}

void Esp32Port::http_close() {
  if (http_) esp_http_client_cleanup(http_);
  http_ = nullptr;
}

// --- flash and boot control -------------------------------------------------------------------------------------------------

uint32_t Esp32Port::slot_size(uint8_t slot) { return slots_[slot]->size; }
bool Esp32Port::erase(uint8_t slot, uint32_t at) { return esp_partition_erase_range(slots_[slot], at, SECTOR) == ESP_OK; }
bool Esp32Port::write(uint8_t slot, uint32_t at, const uint8_t* from, uint32_t n) {
  return esp_partition_write(slots_[slot], at, from, n) == ESP_OK;
}
bool Esp32Port::read(uint8_t slot, uint32_t at, uint8_t* to, uint32_t n) {
  return esp_partition_read(slots_[slot], at, to, n) == ESP_OK;
}

const uint8_t* Esp32Port::map(uint8_t slot, uint32_t n) {
  if (mapped_) return static_cast<const uint8_t*>(mapped_);  // only the running slot is ever asked for
  if (esp_partition_mmap(slots_[slot], 0, n, ESP_PARTITION_MMAP_DATA, &mapped_, &mapping_) != ESP_OK) mapped_ = nullptr;
  return static_cast<const uint8_t*>(mapped_);
}

uint8_t Esp32Port::running() { return esp_ota_get_running_partition() == slots_[1] ? 1 : 0; }
bool Esp32Port::set_boot(uint8_t slot) { return esp_ota_set_boot_partition(slots_[slot]) == ESP_OK; }
bool Esp32Port::pending_verify() {
  esp_ota_img_states_t state;
  return esp_ota_get_state_partition(esp_ota_get_running_partition(), &state) == ESP_OK && state == ESP_OTA_IMG_PENDING_VERIFY;
}
bool Esp32Port::mark_valid() { return !pending_verify() || esp_ota_mark_app_valid_cancel_rollback() == ESP_OK; }
void Esp32Port::mark_invalid_and_reboot() {
  esp_ota_mark_app_invalid_rollback_and_reboot();
  esp_restart();  // it returns only when there is nothing to go back to
}
void Esp32Port::restart() { esp_restart(); }

// --- the rest -----------------------------------------------------------------------------------------------------------------

uint32_t Esp32Port::millis() { return static_cast<uint32_t>(esp_timer_get_time() / 1000); }
uint32_t Esp32Port::now() {
  const uint32_t told = static_cast<uint32_t>(time(nullptr));
  return told > CLOCK_IS_SET ? told : 0;
}
void Esp32Port::random(uint8_t* to, uint32_t n) { esp_fill_random(to, n); }

int Esp32Port::get(const char* key, void* to, uint32_t room) {
  size_t n = room;
  return nvs_get_blob(store_, key, to, &n) == ESP_OK ? static_cast<int>(n) : -1;
}
bool Esp32Port::put(const char* key, const void* from, uint32_t n) {
  return nvs_set_blob(store_, key, from, n) == ESP_OK && nvs_commit(store_) == ESP_OK;
}
void Esp32Port::log(const char* sentence) { ESP_LOGI(TAG, "%s", sentence); }

}  // namespace skylift
#endif
