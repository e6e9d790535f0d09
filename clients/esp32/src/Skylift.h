// Everything a sketch or a component includes.
#pragma once
#include "esp/esp32_port.hpp"
#include "skylift/client.hpp"
