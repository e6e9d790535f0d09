// What counts.
#pragma once
#include <cstdio>

extern int failures, checks;
#define CHECK(x) (checks++, (x) ? (void)0 : (void)(failures++, std::printf("%s:%d: %s\n", __func__, __LINE__, #x)))
