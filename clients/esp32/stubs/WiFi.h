#pragma once
#include "Arduino.h"
struct WiFiClass {
  void begin(const char*, const char*);
};
extern WiFiClass WiFi;
