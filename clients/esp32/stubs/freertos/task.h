#pragma once
#include "FreeRTOS.h"
typedef struct tskTaskControlBlock* TaskHandle_t;
typedef void (*TaskFunction_t)(void*);
TaskHandle_t xTaskCreateStatic(TaskFunction_t, const char*, uint32_t, void*, UBaseType_t, StackType_t*, StaticTask_t*);
UBaseType_t uxTaskPriorityGet(TaskHandle_t);
TaskHandle_t xTaskGetCurrentTaskHandle(void);
int xTaskNotifyGive(TaskHandle_t);
uint32_t ulTaskNotifyTake(int, uint32_t);
void vTaskSuspend(TaskHandle_t);
void vTaskDelete(TaskHandle_t);
void vTaskDelay(uint32_t);
