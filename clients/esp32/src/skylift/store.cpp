#include "store.hpp"

namespace skylift {
namespace {

uint32_t sum(const RecordHead* record, uint32_t size) {
  const uint32_t skip = sizeof record->crc;
  return crc32(reinterpret_cast<const uint8_t*>(record) + skip, size - skip);
}

void key_of(const char* name, uint32_t number, char* to, uint32_t room) {
  Line(to, room).put("sky.").put(name).put(number & 1 ? 'b' : 'a');
}

// The copy for odd or even numbers, if it is whole.
bool load_copy(Port& port, const char* name, uint32_t which, RecordHead* record, uint32_t size) {
  char key[16];
  key_of(name, which, key, sizeof key);
  fill(record, 0, size);
  const int n = port.get(key, record, size);
  return n >= static_cast<int>(sizeof *record) && sum(record, static_cast<uint32_t>(n)) == record->crc && (record->number & 1) == which;
}

}  // namespace

bool load_record(Port& port, const char* name, RecordHead* record, uint32_t size) {
  const bool even = load_copy(port, name, 0, record, size);
  const uint32_t number = record->number;
  const bool odd = load_copy(port, name, 1, record, size);
  if (odd && (!even || record->number > number)) return true;
  if (even && load_copy(port, name, 0, record, size)) return true;
  fill(record, 0, size);
  return false;
}

bool save_record(Port& port, const char* name, RecordHead* record, uint32_t size) {
  char key[16];
  record->number++;
  record->crc = sum(record, size);
  key_of(name, record->number, key, sizeof key);
  return port.put(key, record, size);
}

}  // namespace skylift
