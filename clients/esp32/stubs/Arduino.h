#pragma once
#include <stdint.h>
#include <stdio.h>
int analogRead(uint8_t);
void delay(uint32_t);
struct EspClass {
  unsigned long long getEfuseMac();
};
extern EspClass ESP;
struct SerialClass {
  void begin(unsigned long);
};
extern SerialClass Serial;
