#pragma once
#include <stdint.h>
typedef uint8_t StackType_t;
typedef unsigned UBaseType_t;
typedef struct {
  void* own[90];
} StaticTask_t;
#define pdTRUE 1
#define portMAX_DELAY 0xFFFFFFFFu
#define pdMS_TO_TICKS(ms) (ms)
