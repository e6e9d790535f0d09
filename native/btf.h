/* A kernel's description of its types (BTF), header and names with it: opened and closed again, in place. */
#ifndef SKYLIFT_BTF_H
#define SKYLIFT_BTF_H
#include <stdint.h>

int sd_btf_open(uint8_t *description, uint32_t size); /* 0 is good; else an sd_error, and what is there is of no use */
int sd_btf_close(uint8_t *description, uint32_t size);
#endif
