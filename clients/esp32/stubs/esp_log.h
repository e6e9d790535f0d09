#pragma once
#define ESP_LOGI(tag, format, ...) ((void)(tag), (void)(__VA_ARGS__))
