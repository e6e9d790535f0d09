// What must survive a power cut, in the port's key-value store: each record twice, written in turns, numbered and
// with a checksum. A write that was torn costs what it wanted to say, never what was there. What an older firmware wrote
// may be shorter: the rest is zero. So records grow at their end, and nowhere else.
#pragma once
#include "port.hpp"

namespace skylift {

struct RecordHead {
  uint32_t crc, number;
};

template <class Body>
struct Record {
  RecordHead head;
  Body body;
};

// False, and all zero, where nothing whole is there.
bool load_record(Port& port, const char* name, RecordHead* record, uint32_t size);
bool save_record(Port& port, const char* name, RecordHead* record, uint32_t size);

template <class Body>
bool load(Port& port, const char* name, Record<Body>& record) {
  return load_record(port, name, &record.head, sizeof record);
}
template <class Body>
bool save(Port& port, const char* name, Record<Body>& record) {
  return save_record(port, name, &record.head, sizeof record);
}

}  // namespace skylift
